"""`ima-yolo predict` for an ONNX file: pictures and frames in, drawn pictures, labels and tables out, without torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ima_yolo.errors import IMAError
from ima_yolo.lists import listed

from .habits import HABITS, without_habits
from .metadata import GraphKind
from .postprocess import Thresholds
from .results import Result
from .runtime import Detector
from .settings import nearest_key
from .sources import find_sources, is_endless, is_single_picture, read_frames
from .stopping import interrupted_by_signals
from .videos import Frame
from .writers import Writer

FORMATS = {"save": "picture", "save_txt": "txt", "save_json": "json", "save_csv": "csv", "save_coco": "coco"}
"""Key -> what `Writer` writes for it."""

SWITCHES = frozenset(
    {"exist_ok", "save_conf", "agnostic_nms", "verbose", *FORMATS}
    | {key for key, (harmless, _) in HABITS.items() if {True, False} & set(harmless)}
)
"""Keys that are on or off, which `yolo` takes as bare words."""


@dataclass(frozen=True)
class PredictOptions:
    """Keys of `ima-yolo predict`. Checked when made.

    Attributes:
        conf: Scores must be above it, 0 to 1.
        iou: Overlap in NMS above which the lower score goes, 0 to 1.
        max_det: Detections kept at most in a picture.
        agnostic_nms: Whether boxes of different classes suppress each other.
        classes: Class index or indices to keep, None for all.
        imgsz: Size of the network input in pixels, for files exported with dynamic=True; None for the file's own.
        batch: Pictures that go through the model together; a file exported for a fixed batch has its own.
        vid_stride: Every how many frames of a video or stream one is looked at.
        max_frames: Frames after which a video, stream or camera is left, None for its end.
        threads: Threads within an operator, None for one a core.
        providers: Execution provider or providers of ONNX Runtime, None for the CPU.
        project: Folder that holds the results' folder.
        name: The results' folder; a number is added if it exists.
        exist_ok: Whether to write into a folder that exists.
        save: Whether to write drawn pictures and videos.
        save_txt: Whether to write labels in the YOLO format.
        save_conf: Whether labels carry the score.
        save_json: Whether to write predictions.json.
        save_csv: Whether to write predictions.csv.
        save_coco: Whether to write coco.json, in COCO's format of results; classes are numbered as in `yolo val`.
        verbose: Whether to print a line for each picture; those that cannot be read are told in any case.
        task: What the model is expected to do, None for whatever it does.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    agnostic_nms: bool = False
    classes: int | Sequence[int] | None = None
    imgsz: int | Sequence[int] | None = None
    batch: int = 1
    vid_stride: int = 1
    max_frames: int | None = None
    threads: int | None = None
    providers: str | Sequence[str] | None = None
    project: str | Path = "runs/detect"
    name: str = "predict"
    exist_ok: bool = False
    save: bool = True
    save_txt: bool = False
    save_conf: bool = False
    save_json: bool = False
    save_csv: bool = False
    save_coco: bool = False
    verbose: bool = True
    task: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that are not what a key takes.

        Raises:
            IMAError: Naming the key, its value and what was expected.
        """
        for key in ("exist_ok", "save_conf", "verbose", *FORMATS):
            if not isinstance(getattr(self, key), bool):
                raise IMAError(f"{key}={getattr(self, key)!r}: expected True or False")
        for key in ("project", "name"):
            if not isinstance(getattr(self, key), (str, Path)) or not str(getattr(self, key)):
                raise IMAError(f"{key}={getattr(self, key)!r}: expected a folder name")
        for key in ("batch", "vid_stride", "max_frames"):
            value = getattr(self, key)
            if not (key == "max_frames" and value is None) and (type(value) is not int or value < 1):
                raise IMAError(f"{key}={value!r}: expected a whole number above 0")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> PredictOptions:
        """Make options from keys as the user typed them; a key set to None keeps its default.

        Raises:
            IMAError: An unknown key, with the nearest valid one, or a value that a key does not take.
        """
        options, valid = without_habits(options), [field.name for field in fields(cls)]
        for key in options:
            if key not in valid:
                raise IMAError(f"{key}= is not a setting of predict, {nearest_key(key, ['model', 'source', *valid])}")
        return cls(**{key: value for key, value in options.items() if value is not None})

    def thresholds(self) -> Thresholds:
        """The part that decides what is kept."""
        return Thresholds(self.conf, self.iou, self.max_det, self.agnostic_nms, self.classes)


def run(model: str | Path, source: object, **options: Any) -> int:
    """Look into pictures and frames, print a line for each, and write the results to a folder.

    Args:
        model: An ONNX file that `Detector` takes.
        source: As in `find_sources`.
        **options: See `PredictOptions`.

    Returns:
        The exit code: 0, or 1 if some pictures could not be read.

    Raises:
        IMAError: A setting, the model or the source cannot be used; nothing is written then.
    """
    chosen = PredictOptions.parse(options)
    thresholds = chosen.thresholds()
    given = chosen.providers.strip("[]") if isinstance(chosen.providers, str) else chosen.providers
    providers = None if given is None else listed(given)
    detector = Detector(model, chosen.threads, providers, chosen.imgsz)
    if chosen.task not in (None, detector.metadata.task):
        raise IMAError(f"task={chosen.task}: {model} is a {detector.metadata.task} model; leave task= out")
    detector.check_classes(thresholds)
    sources = find_sources(source)
    _note_what_has_no_effect(detector, model, options)
    formats = [what for key, what in FORMATS.items() if getattr(chosen, key)]
    writer = Writer(Path(chosen.project) / chosen.name, chosen.exist_ok, formats, chosen.save_conf)
    read, unread, total = 0, 0, f"/{len(sources)}" if all(is_single_picture(item) for item in sources) else ""
    with _ended(writer, any(is_endless(item) for item in sources)):
        for frame, number, line in _lines(detector, thresholds, chosen, sources, writer):
            read, unread = read + (line is not None), unread + (line is None)
            if line and not chosen.verbose:
                continue
            where = frame.name if frame.number is None else f"{frame.name} frame {frame.number}"
            _say(f"image {number}{total} {where}: {line or f'cannot be read, left out ({frame.fault})'}")
    told = f"Results saved to {writer.folder}" if formats else "Nothing was saved, since no save key is on"
    if not read and writer.is_empty():
        told = "Nothing was saved"
    _say(told + (f", {unread} pictures could not be read" if unread else ""))
    return 1 if unread else 0


@contextmanager
def _ended(writer: Writer, endless: bool) -> Iterator[None]:
    """Finish what was written, however the work inside ends; to stop it is the only way to end a camera or stream."""
    try:
        with interrupted_by_signals():
            try:
                yield
            finally:
                writer.close()
    except KeyboardInterrupt:
        if not endless:
            raise
        _say("stopped")


def _note_what_has_no_effect(detector: Detector, model: str | Path, options: Mapping[str, Any]) -> None:
    """Say which of the keys that the user typed change nothing with this model."""
    kind = detector.metadata.kind
    if kind is not GraphKind.RAW and options.keys() & {"iou", "agnostic_nms"}:
        _say(f"note: iou= and agnostic_nms= have no effect, {model} gives {kind.value} outputs")
    if kind is GraphKind.NMS_EMBEDDED and "conf" in options:
        _say("note: below the conf= that the file was exported with, conf= has no effect: its NMS is inside")
    if kind is GraphKind.DENSE and options.get("save_coco"):
        _say("note: save_coco=True has no effect, class maps are no records of COCO")


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this module is the command, not the library


def _lines(
    detector: Detector, thresholds: Thresholds, chosen: PredictOptions, sources: Sequence[str | int], writer: Writer
) -> Iterator[tuple[Frame, int, str | None]]:
    """Look into all frames and write their results; gives each frame, its number, and its text if it was read."""
    numbers = count(1)
    read = read_frames(sources, chosen.vid_stride, chosen.max_frames, detector.metadata.channels)
    for frames in _batches(read, chosen.batch):
        images = [frame.image for frame in frames if frame.image is not None]
        start = time.perf_counter()
        results = iter(detector.detect(images, thresholds))
        milliseconds = (time.perf_counter() - start) * 1e3 / max(len(images), 1)
        for frame in frames:
            line = None
            if frame.image is not None:
                line = _keep(frame, frame.image, next(results), writer) + f", {milliseconds:.1f} ms"
            yield frame, next(numbers), line


def _keep(frame: Frame, image: np.ndarray, found: Result, writer: Writer) -> str:
    writer.write(frame, image, found)
    return f"{image.shape[1]}x{image.shape[0]} {found.summary()}"


def _batches(frames: Iterator[Frame], size: int) -> Iterator[list[Frame]]:
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
