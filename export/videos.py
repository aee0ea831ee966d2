"""Frames of videos, cameras and network streams."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

OPEN_TIMEOUT = 10_000
"""Milliseconds that a stream may take to open, and to give its next frame."""

LOST, LOST_SHARE = 2, 0.05
"""Frames that may be missing at the end of a video, and their share: some containers count them roughly."""


@dataclass(frozen=True)
class Frame:
    """A picture on its way to the model.

    Attributes:
        name: What is shown and written as its origin: a path, or the address of a stream without its password.
        image: (H, W, C) uint8, BGR where C is 3; None if it cannot be read.
        fault: Why it cannot be read, "" if it can.
        number: Which frame of a video or stream, from 0; None of a picture file.
        fps: Frames a second of the video or stream, 0 of a picture file.
    """

    name: str
    image: np.ndarray | None
    fault: str = ""
    number: int | None = None
    fps: float = 0.0


def is_text(name: str) -> bool:
    """Whether a file's name is text, and not bytes that no encoding explains."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def read_video(source: str | int, name: str, endless: bool, stride: int = 1) -> Iterator[Frame]:
    """Read frames until a video or stream ends.

    Args:
        source: A path, an address, or a camera's number.
        name: Of its frames.
        endless: Whether it is a camera or a stream.
        stride: Every how many frames one is given.

    Yields:
        The frames; that there is none, or that it ends too early, is the last one.
    """
    capture = _open(source)
    try:
        fps, number = capture.get(cv2.CAP_PROP_FPS) or 0.0, 0
        if not capture.isOpened():
            yield Frame(name, None, "cannot be opened as a video, stream or camera")
            return
        asked = time.monotonic()
        while capture.grab():
            if number % stride == 0:
                read, image = capture.retrieve()
                broken = not read or image is None or not image.size
                yield Frame(name, None if broken else image, "a frame is damaged" if broken else "", number, fps)
            number += 1
            asked = time.monotonic()
        waited = time.monotonic() - asked
        count = 0 if endless else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        for image in _pages_left(name, number) if number < count else ():
            if number % stride == 0:
                yield Frame(name, image, "", number, fps)
            number += 1
        if fault := _ends_early(source, endless, number, count, waited):
            yield Frame(name, None, fault)
    finally:
        capture.release()


def _ends_early(source: str | int, endless: bool, number: int, count: int, waited: float) -> str:
    """Why a video, stream or camera should not have ended where it did; "" if it may have.

    Args:
        source: Which.
        endless: Whether it is a camera or a stream.
        number: Frames that it gave.
        count: Frames that it says to have.
        waited: Seconds until it was known that no more come.
    """
    if not number:
        return "holds no frame that OpenCV reads"
    if isinstance(source, int):
        return f"gives no more after {number} frames"
    if endless and waited > 0.9 * OPEN_TIMEOUT / 1000:
        return f"gives no more after {number} frames, in {waited:.0f} s"
    if count - number > max(LOST, LOST_SHARE * count):
        return f"is damaged or cut off: ends after {number} of {count} frames"
    return ""


def _pages_left(name: str, number: int) -> Sequence[np.ndarray]:
    """The pictures of a GIF from one on: as a video it ends at the first that is shown for no time."""
    if Path(name).suffix.lower() != ".gif" or not Path(name).is_file():
        return ()
    data = np.fromfile(name, np.uint8)
    try:
        read, pages = cv2.imdecodemulti(data, cv2.IMREAD_COLOR)
    except cv2.error:
        return ()
    return pages[number:] if read else ()


def _open(source: str | int) -> cv2.VideoCapture:
    if isinstance(source, int):
        return cv2.VideoCapture(source) if source < 2**31 else cv2.VideoCapture()  # which is open on nothing
    if not is_text(source):  # which OpenCV does not survive
        return cv2.VideoCapture()
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_TIMEOUT]
    return cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
