"""`ima-yolo predict` for an ONNX file: pictures in, drawn pictures, labels and JSON out, without torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ima_yolo.errors import IMAError

from .metadata import GraphKind
from .postprocess import Thresholds
from .results import Detections
from .runtime import Detector
from .settings import nearest_key
from .sources import find_images, read_image


@dataclass(frozen=True)
class PredictOptions:
    """Keys of `ima-yolo predict`. Checked when made.

    Attributes:
        conf: Scores must be above it, 0 to 1.
        iou: Overlap in NMS above which the lower score goes, 0 to 1.
        max_det: Detections kept at most in a picture.
        agnostic_nms: Whether boxes of different classes suppress each other.
        classes: Class index or indices to keep, None for all.
        threads: Threads within an operator, None for one a core.
        providers: Execution provider or providers of ONNX Runtime, None for the CPU.
        project: Folder that holds the results' folder.
        name: The results' folder; a number is added if it exists.
        exist_ok: Whether to write into a folder that exists.
        save: Whether to write drawn pictures.
        save_txt: Whether to write labels in the YOLO format.
        save_conf: Whether labels carry the score.
        save_json: Whether to write predictions.json.
    """

    conf: float = 0.25
    iou: float = 0.7
    max_det: int = 300
    agnostic_nms: bool = False
    classes: int | Sequence[int] | None = None
    threads: int | None = None
    providers: str | Sequence[str] | None = None
    project: str | Path = "runs/detect"
    name: str = "predict"
    exist_ok: bool = False
    save: bool = True
    save_txt: bool = False
    save_conf: bool = False
    save_json: bool = False

    def __post_init__(self) -> None:
        """Refuse values that are not what a key takes.

        Raises:
            IMAError: Naming the key, its value and what was expected.
        """
        for key in ("exist_ok", "save", "save_txt", "save_conf", "save_json"):
            if not isinstance(getattr(self, key), bool):
                raise IMAError(f"{key}={getattr(self, key)!r}: expected True or False")
        for key in ("project", "name"):
            if not isinstance(getattr(self, key), (str, Path)) or not str(getattr(self, key)):
                raise IMAError(f"{key}={getattr(self, key)!r}: expected a folder name")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> PredictOptions:
        """Make options from keys as the user typed them; a key set to None keeps its default.

        Raises:
            IMAError: An unknown key, with the nearest valid one, or a value that a key does not take.
        """
        valid = [field.name for field in fields(cls)]
        for key in options:
            if key not in valid:
                raise IMAError(f"{key}= is not a setting of predict, {nearest_key(key, ['model', 'source', *valid])}")
        return cls(**{key: value for key, value in options.items() if value is not None})

    def thresholds(self) -> Thresholds:
        """The part that decides what is kept."""
        classes = [self.classes] if isinstance(self.classes, int) else self.classes
        return Thresholds(self.conf, self.iou, self.max_det, self.agnostic_nms, classes)


def run(model: str | Path, source: str | Path | None, **options: Any) -> int:
    """Detect in pictures, print a line for each, and write the results to a folder.

    Args:
        model: An ONNX file that `Detector` takes.
        source: A picture, a folder or a glob pattern.
        **options: See `PredictOptions`.

    Returns:
        The exit code: 0, or 1 if some pictures could not be read.

    Raises:
        IMAError: A setting, the model or the source cannot be used; nothing is written then.
    """
    chosen = PredictOptions.parse(options)
    thresholds = chosen.thresholds()
    providers = [chosen.providers] if isinstance(chosen.providers, str) else chosen.providers
    detector = Detector(model, chosen.threads, providers)
    detector.check_classes(thresholds)
    paths = find_images(source)
    if detector.metadata.kind is not GraphKind.RAW and options.keys() & {"iou", "agnostic_nms"}:
        _say(f"note: iou= and agnostic_nms= have no effect, {model} gives {detector.metadata.kind.value} outputs")
    writer = _Writer(chosen)
    unread = 0
    for index, path in enumerate(paths, 1):
        line = _predict_one(detector, thresholds, path, writer)
        unread += line is None
        _say(f"image {index}/{len(paths)} {path}: {line or 'cannot be read, left out'}")
    writer.finish()
    _say(f"Results saved to {writer.folder}" + (f", {unread} pictures could not be read" if unread else ""))
    return 1 if unread else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this module is the command, not the library


def _predict_one(detector: Detector, thresholds: Thresholds, path: Path, writer: _Writer) -> str | None:
    """Detect in one picture and write its results; gives the text of its line, None if it cannot be read."""
    image = read_image(path)
    if image is None:
        return None
    start = time.perf_counter()
    found = detector.detect(image, thresholds)
    milliseconds = (time.perf_counter() - start) * 1e3
    writer.write(path, image, found)
    return f"{image.shape[1]}x{image.shape[0]} {found.summary()}, {milliseconds:.1f} ms"


class _Writer:
    """The results' folder."""

    def __init__(self, options: PredictOptions) -> None:
        self.options = options
        self.folder = _new_folder(Path(options.project) / options.name, options.exist_ok)
        self.stems: set[str] = set()
        self.records: list[dict[str, Any]] = []

    def write(self, path: Path, image: np.ndarray, found: Detections) -> None:
        stem = self._stem(path)
        with self._errors_named():
            if self.options.save:
                self._write_picture(stem, path.suffix, found.draw(image))
            if self.options.save_txt:
                self._write_labels(stem, found.to_yolo_txt(self.options.save_conf))
        height, width = found.shape
        self.records.append({"image": str(path), "width": width, "height": height, "detections": found.to_dicts()})

    def finish(self) -> None:
        if self.options.save_json:
            with self._errors_named():
                (self.folder / "predictions.json").write_text(json.dumps(self.records, indent=1), encoding="utf-8")

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise IMAError(f"{self.folder}: cannot be written to ({error.strerror})") from error

    def _stem(self, path: Path) -> str:
        """The name of a picture's results; a second bus.* becomes bus-2, as in Ultralytics."""
        stem, number = path.stem, 1
        while stem in self.stems:
            number += 1
            stem = f"{path.stem}-{number}"
        self.stems.add(stem)
        return stem

    def _write_picture(self, stem: str, suffix: str, picture: np.ndarray) -> None:
        # Not every format that can be read can be written.
        suffix = suffix if cv2.haveImageWriter(f"x{suffix}") else ".jpg"
        # Encoded to bytes, because cv2.imwrite does not open every file name on every system.
        cv2.imencode(suffix, picture)[1].tofile(self.folder / f"{stem}{suffix}")

    def _write_labels(self, stem: str, text: str) -> None:
        """Write a label file; a picture without detections has none, also none from an earlier run."""
        file = self.folder / "labels" / f"{stem}.txt"
        file.unlink(missing_ok=True)
        if text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")


def _new_folder(wanted: Path, exist_ok: bool) -> Path:
    """Make `wanted`, or the first free of wanted-2, wanted-3, ... as Ultralytics numbers them.

    Raises:
        IMAError: It cannot be made.
    """
    folder, number = wanted, 1
    try:
        while folder.exists() and not exist_ok:
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        raise IMAError(f"{folder}: cannot be made ({error.strerror}); choose another project=") from error
    return folder
