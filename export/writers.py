"""The results' folder: drawn pictures and videos, label files, JSON, CSV and COCO records."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ima_yolo.errors import IMAError, one_line
from ima_yolo.plain_files import check_tree

from .records import RecordFile
from .results import ClassMap, Detections, Result
from .videos import Frame, is_text

COLUMNS = ("image", "frame", "name", "class", "confidence", "x1", "y1", "x2", "y2")
ROTATED = ("cx", "cy", "width", "height", "angle")
GREY_ONLY = (".pbm", ".pgm")
"""Formats that hold no colour, such as that of the drawn boxes."""

DEFAULT_FPS = 25.0
"""Frames a second of a drawn stream that does not say its own."""

RECORDS = {"json": "predictions.json", "coco": "coco.json"}
"""Format -> the file of its records."""

COUNTED_ROUGHLY = 2
"""Frames by which a video's own count may differ from what was written."""


class Writer:
    """Writes each result as it comes; tables and videos are complete after `close`, records at any time."""

    def __init__(self, folder: Path, exist_ok: bool, formats: Sequence[str], with_conf: bool = False) -> None:
        """Make the folder, where there is something to write.

        Args:
            folder: Where to write; the first free of folder, folder-2, ... unless `exist_ok`.
            exist_ok: Whether to write into a folder that exists.
            formats: Any of picture, txt, json, csv, coco.
            with_conf: Whether label lines carry the score.

        Raises:
            IMAError: It cannot be made, or not be written to.
        """
        self.folder, self._made = new_folder(folder, exist_ok) if formats else (folder, [])
        self.formats, self.with_conf = frozenset(formats), with_conf
        self._stems: dict[str, str] = {}
        self._last: dict[str, int] = {}  # frame of each clip: one that is named twice begins anew
        self._taken: dict[str, int] = {}
        self._clips: set[str] = set()
        self._image_ids: dict[int, str] = {}
        self._videos: dict[str, tuple[cv2.VideoWriter, Path]] = {}
        self._frames: dict[str, int] = {}  # written of each video
        self._open = ExitStack()
        self._table: Any = None
        with self._errors_named():
            kinds = [key for key in RECORDS if key in self.formats]
            self._records = {key: RecordFile(self.folder / RECORDS[key]) for key in kinds}

    def write(self, frame: Frame, image: np.ndarray, found: Result) -> None:
        """Write one result.

        Raises:
            IMAError: The folder cannot be written to.
        """
        stem = self._stem(frame)
        label = stem if frame.number is None else f"{stem}_{frame.number}"
        with self._errors_named():
            if "picture" in self.formats:
                self._write_picture(stem, frame, found.draw(image))
            if "txt" in self.formats:
                self._write_labels(label, found)
            if "csv" in self.formats:
                self._write_rows(frame, found)
            if "json" in self.formats:
                self._records["json"].add([record_of(frame, found)])
            if "coco" in self.formats and isinstance(found, Detections):
                records = found.to_coco(self._image_id(label))
                self._records["coco"].add([{**record, "file_name": frame.name} for record in records])

    def close(self) -> None:
        """Finish tables and videos.

        Raises:
            IMAError: The folder cannot be written to.
        """
        with self._errors_named():
            for video, _ in self._videos.values():
                video.release()
            for records in self._records.values():
                records.close()
            self._open.close()
        for stem, (_, path) in self._videos.items():
            _check_video(path, self._frames[stem])

    def is_empty(self) -> bool:
        """Whether nothing was written; the folders that were made for it are taken away."""
        for folder in self._made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        return bool(self.formats) and not (self.folder.exists() and any(self.folder.iterdir()))

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise IMAError(f"{self.folder}: cannot be written to ({error.strerror or one_line(error)})") from error

    def _stem(self, frame: Frame) -> str:
        """The name of a source's results; a second bus.* becomes bus-2, as in Ultralytics."""
        if frame.number is not None and frame.number > self._last.get(frame.name, frame.number):
            self._last[frame.name] = frame.number
            return self._stems[frame.name]
        plain = Path(frame.name).stem
        if not Path(frame.name).suffix:
            plain = "".join(c if c.isalnum() else "_" for c in frame.name)
        plain = plain.encode(errors="backslashreplace").decode()  # bytes that are no text, which OpenCV does not take
        stem, number = plain, self._taken.get(plain, 0)
        while self._is_taken(stem, frame):
            number += 1
            stem = f"{plain}-{number}"
        self._taken[plain], self._taken[stem] = max(number, 1), 1
        self._stems[frame.name] = stem
        if frame.number is not None:
            self._clips.add(stem)
            self._last[frame.name] = frame.number
        return stem

    def _is_taken(self, stem: str, frame: Frame) -> bool:
        """Whether another source has this name, or a picture one that a frame of a video has: "clip_0"."""
        if frame.number is None:
            clip, _, number = stem.rpartition("_")
            return stem in self._taken or (number.isdecimal() and clip in self._clips)
        frames = (name.removeprefix(f"{stem}_") for name in self._taken if name.startswith(f"{stem}_"))
        return stem in self._taken or any(rest.isdecimal() for rest in frames)

    def _write_picture(self, stem: str, frame: Frame, picture: np.ndarray) -> None:
        if frame.number is not None:
            video = self._video(stem, frame, picture)
            if video.isOpened():
                video.write(picture)
                self._frames[stem] += 1
                return
            stem = f"{stem}_{frame.number}"  # no encoder, or none for so small a picture: one file a frame
        suffix, data = _encoded(".png" if frame.number is not None else Path(frame.name).suffix, picture)
        data.tofile(self.folder / f"{stem}{suffix}")

    def _video(self, stem: str, frame: Frame, picture: np.ndarray) -> cv2.VideoWriter:
        if stem not in self._videos:
            path, size = self.folder / f"{stem}.mp4", (picture.shape[1], picture.shape[0])
            fps = frame.fps if 0 < frame.fps <= 240 else DEFAULT_FPS
            arguments = (str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size) if is_text(str(path)) else ()
            self._videos[stem] = cv2.VideoWriter(*arguments), path
            self._frames[stem] = 0
        return self._videos[stem][0]

    def _write_labels(self, stem: str, found: Result) -> None:
        """Write a label file; a picture without detections has none, also none from an earlier run."""
        if isinstance(found, ClassMap):  # its labels are a picture of class indices, as Ultralytics trains on
            path = self.folder / "labels" / f"{stem}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imencode(".png", found.classes.astype(np.uint8))[1].tofile(path)
            return
        file, text = self.folder / "labels" / f"{stem}.txt", found.to_yolo_txt(self.with_conf)
        file.unlink(missing_ok=True)
        if text:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")

    def _write_rows(self, frame: Frame, found: Result) -> None:
        if self._table is None:
            path, kept = self.folder / "predictions.csv", "backslashreplace"  # of names that are no text
            file = self._open.enter_context(path.open("w", newline="", encoding="utf-8", errors=kept))
            self._table = csv.writer(file)
            self._table.writerow(columns_of(found))
        self._table.writerows(rows_of(frame, found))

    def _image_id(self, stem: str) -> int | str:
        """COCO numbers its images; names that are no number stay names, and so do those whose number is taken (01)."""
        if not (stem.isascii() and stem.isdigit()):
            return stem
        return int(stem) if self._image_ids.setdefault(int(stem), stem) == stem else stem


def _check_video(path: Path, frames: int) -> None:
    """Read a finished video's head, since its writer tells of no fault.

    Raises:
        IMAError: It is not whole, as on a full disk.
    """
    if not frames:  # pictures in its place
        return
    capture = cv2.VideoCapture(str(path))
    counted = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
    capture.release()
    if not 0 < counted >= frames - COUNTED_ROUGHLY:
        raise IMAError(f"{path}: the video could not be written; look for room on the disk")


def _encoded(suffix: str, picture: np.ndarray) -> tuple[str, np.ndarray]:
    """A colour picture as the bytes of a file, in its own format if that can be written, else as .jpg or .png.

    Encoded to bytes, because cv2.imwrite does not open every file name on every system.
    """
    if suffix.lower() in GREY_ONLY or not cv2.haveImageWriter(f"x{suffix}"):
        suffix = ".jpg"
    try:
        written, data = cv2.imencode(suffix, picture)
    except cv2.error:
        written = False
    if not written:  # a side may be too long for the format, such as 65,500 px for .jpg
        suffix, (_, data) = ".png", cv2.imencode(".png", picture)
    return suffix, data


def record_of(frame: Frame, found: Result) -> dict[str, Any]:
    """One picture's entry in predictions.json."""
    height, width = found.shape
    number = {} if frame.number is None else {"frame": frame.number}
    return {"image": frame.name, **number, "width": width, "height": height, "detections": found.to_dicts()}


def columns_of(found: Result) -> list[str]:
    """The head of predictions.csv: boxes of all models, angles and keypoints where the model gives them."""
    if isinstance(found, ClassMap):
        return ["image", "frame", "name", "class", "pixel_ratio"]
    points = [] if found.keypoints is None else range(found.keypoints.shape[1])
    names = "xyv"[: 0 if found.keypoints is None else found.keypoints.shape[2]]
    return [*COLUMNS, *(ROTATED if found.rotated is not None else ()), *(f"{n}_{k}" for k in points for n in names)]


def rows_of(frame: Frame, found: Result) -> list[list[Any]]:
    """One row a detection, or a class that is there."""
    start = [frame.name, "" if frame.number is None else frame.number]
    if isinstance(found, ClassMap):
        return [[*start, *entry.values()] for entry in found.to_dicts()]
    numbers = [found.scores[:, None], found.boxes]
    numbers += [] if found.rotated is None else [found.rotated]
    numbers += [] if found.keypoints is None else [found.keypoints.reshape(len(found), -1)]  # (N, K, D) -> (N, K * D)
    table = np.concatenate(numbers, axis=1).tolist() if len(found) else []
    return [[*start, found.label(c), int(c), *row] for c, row in zip(found.classes, table, strict=True)]


def new_folder(wanted: Path, exist_ok: bool) -> tuple[Path, list[Path]]:
    """Make `wanted`, or the first free of wanted-2, wanted-3, ... as Ultralytics numbers them.

    Returns:
        The folder, and those that were made, itself first; none where it was there.

    Raises:
        IMAError: It cannot be made, or it is there and something in it would be waited for or leads elsewhere.
    """
    folder, number = wanted, 1
    try:
        while folder.exists() and not exist_ok:
            number += 1
            folder = wanted.with_name(f"{wanted.name}-{number}")
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except (OSError, ValueError) as error:  # the latter of a name such as "/"
        reason = getattr(error, "strerror", None) or one_line(error)
        raise IMAError(f"{folder}: cannot be made ({reason}); choose another project= or name=") from error
    check_tree(folder)
    return folder, made
