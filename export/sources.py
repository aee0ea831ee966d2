"""Where pictures come from: files, folders, patterns, lists, videos, cameras and network streams; and pictures."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from ima_yolo.errors import SECRET, IMAError, one_line
from ima_yolo.lists import listed_files

from .videos import OPEN_TIMEOUT, Frame, read_video

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".dng", ".heic", ".heif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".mpo", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File endings that count as pictures in a folder or a pattern; one that OpenCV cannot read is reported."""

VIDEO_SUFFIXES = frozenset(
    {".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
"""File endings that count as videos; of a GIF every picture of its animation is a frame."""

LISTS = (".txt", ".streams")
"""File endings that are lists of sources, one a line."""

NO_FILE = "cannot be opened (no file)"

STREAMS = ("rtsp://", "rtmp://", "http://", "https://", "tcp://", "udp://")

READ_AS = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}
"""Channels of a model to the form in which pictures are decoded for it; for any other number they stay unchanged."""


def find_images(source: str | Path | None, key: str = "source") -> list[Path]:
    """List the pictures that a source names, sorted.

    Args:
        source: A picture file, a folder (not searched deeper) or a glob pattern; None is refused.
        key: The setting that it stands in, for error messages.

    Raises:
        IMAError: Nothing is there, or no file in it is a picture.
    """
    return _find_files(source, IMAGE_SUFFIXES, "pictures", key)


def find_sources(source: object) -> list[str | int]:
    """List what a source names: paths of pictures and videos, addresses of streams, numbers of cameras.

    Args:
        source: A picture or video file, a folder, a glob pattern, a stream's address, a camera's number, a text file
            with one of these a line (.txt, .streams), or several of them, as a list or with commas; None is refused.

    Returns:
        What was found; of several, one that is not there stays, to be reported when its turn comes.

    Raises:
        IMAError: Nothing is there.
    """
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() in LISTS and Path(source).is_file():
        source = _lines_of(Path(source))
    elif isinstance(source, str) and "," in source and not _is_one(source):
        source = [int(word) if word.isdecimal() else word for word in listed_files(source.strip("[]"))]
    if isinstance(source, (list, tuple)):
        return _each_of(source)
    if isinstance(source, int) and not isinstance(source, bool) and source >= 0:
        return [source]
    if isinstance(source, str) and source.lower().startswith(STREAMS):
        return [source]
    if source is not None and not isinstance(source, (str, Path)):
        raise IMAError(f"source={source!r}: expected a file, folder, pattern, stream's address or camera's number")
    return [str(path) for path in _find_files(source, IMAGE_SUFFIXES | VIDEO_SUFFIXES, "pictures or videos")]


def _each_of(sources: Sequence[object]) -> list[str | int]:
    if not sources:
        raise IMAError("source=[]: expected at least one picture, folder, video, stream or camera")
    found: list[str | int] = []
    faults: list[IMAError] = []
    for item in sources:
        try:
            found += find_sources(item)
        except IMAError as error:
            found.append(str(item))
            faults.append(error)
    if len(faults) == len(sources):
        raise faults[0]
    return found


def _is_one(source: str) -> bool:
    """Whether a text with commas is a single source all the same."""
    is_address = source.lower().startswith(STREAMS) and len(re.findall("://", source)) == 1
    return is_address or Path(source).exists() or bool(glob.has_magic(source) and glob.glob(source, recursive=True))


def _lines_of(path: Path) -> list[str | int]:
    """The sources in a text file; paths are meant from the file's own folder or, if they are not there, from this one.

    Raises:
        IMAError: It is no text, empty, or names lists in turn.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
        lines = [line for line in lines if line and not (line.startswith("#") and not (path.parent / line).exists())]
    except (OSError, UnicodeDecodeError) as error:
        raise IMAError(f"source={path}: cannot be read as a list of sources ({one_line(error)})") from error
    if not lines:
        raise IMAError(f"source={path}: expected a picture, folder, video or stream on each line, it has none")
    if nested := [line for line in lines if Path(line).suffix.lower() in LISTS]:
        raise IMAError(f"source={path}: names {nested[0]}, a list in a list")
    found = [str(path.parent / line) if (path.parent / line).exists() else line for line in lines]
    return [int(line) if line.isdecimal() and not Path(line).exists() else line for line in found]


def is_single_picture(source: str | int) -> bool:
    """Whether one of `find_sources` is a picture file; anything else gives frames."""
    return isinstance(source, str) and not is_endless(source) and Path(source).suffix.lower() not in VIDEO_SUFFIXES


def is_picture_address(source: str) -> bool:
    """Whether an address is that of a single picture, by the ending of its path."""
    try:
        parts = urlsplit(source)
    except ValueError:  # no address after all
        return False
    return parts.scheme.lower() in ("http", "https") and Path(parts.path).suffix.lower() in IMAGE_SUFFIXES


def is_endless(source: str | int) -> bool:
    """Whether one of `find_sources` is a camera or a stream."""
    return isinstance(source, int) or (source.lower().startswith(STREAMS) and not is_picture_address(source))


def read_frames(
    sources: Sequence[str | int], stride: int = 1, most: int | None = None, channels: int = 3
) -> Iterator[Frame]:
    """Read pictures and frames one after the other.

    Args:
        sources: Of `find_sources`.
        stride: Every how many frames of a video or stream one is given.
        most: Frames given of each video or stream, None for all.
        channels: That the model takes; frames come in colour.

    Yields:
        Each picture and frame; where one cannot be read, a frame without image, and the rest goes on.
    """
    for source in sources:
        if is_single_picture(source):
            yield read_picture(str(source), channels)
        elif isinstance(source, str) and _would_wait(source):
            yield Frame(_shown(source), None, NO_FILE)
        elif channels not in READ_AS:
            yield Frame(_shown(source), None, f"its frames have 3 channels, the model takes {channels}")
        else:
            yield from islice(read_video(source, _shown(source), is_endless(source), stride), most)


def read_picture(source: str | Path, channels: int = 3) -> Frame:
    """Read a picture as `load_image` does; of an animation the first picture."""
    name = _shown(source)
    try:
        return Frame(name, load_image(source, channels))
    except IMAError as error:
        return Frame(name, None, str(error))


def need_image(path: Path, channels: int = 3) -> np.ndarray:
    """Read a picture file that cannot be left out, as `load_image` does.

    Raises:
        IMAError: Naming the file, and why it cannot be read.
    """
    frame = read_picture(path, channels)
    if frame.image is None:
        raise IMAError(f"{path}: cannot be read as a picture ({frame.fault})")
    return frame.image


def load_image(source: str | Path, channels: int = 3) -> np.ndarray:
    """Read a picture as Ultralytics reads the data of a model.

    Args:
        source: The file, or its address.
        channels: That the model takes. With 1 or 3 every picture is brought to grey or to BGR and turned upright by its
            EXIF note; with any other number it is taken as it is, the pages of a TIFF as channels.

    Returns:
        (H, W, `channels`) uint8; of 16 bits the upper 8.

    Raises:
        IMAError: Why it cannot be read.
    """
    data = _bytes_of(source)
    if not data.size:
        raise IMAError("is empty")
    try:
        image = _decode(data, str(source).lower().endswith((".tif", ".tiff")), channels)
    except (cv2.error, MemoryError) as error:
        raise IMAError("is damaged, or too large (OPENCV_IO_MAX_IMAGE_PIXELS)") from error
    if image is None or not image.size:
        raise IMAError("is damaged, or no picture that OpenCV reads")
    image = image[..., None] if image.ndim == 2 else image
    if image.shape[2] != channels:
        raise IMAError(f"has {image.shape[2]} channels, the model takes {channels}")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if image.dtype != np.uint8:
        raise IMAError(f"holds values of type {image.dtype}, expected 8 or 16 bits without sign")
    return image


def _bytes_of(source: str | Path) -> np.ndarray:
    """A picture's bytes, (N,) uint8, since cv2.imread does not open every file name on every system."""
    if isinstance(source, str) and is_picture_address(source):
        from .fetched import fetch  # its imports take longer than a picture

        return np.frombuffer(fetch(source, OPEN_TIMEOUT / 1000), np.uint8)
    if _would_wait(source):
        raise IMAError(NO_FILE)
    try:
        return np.fromfile(source, np.uint8)
    except OSError as error:
        raise IMAError(f"cannot be opened ({error.strerror or one_line(error)})") from error


def _decode(data: np.ndarray, is_tiff: bool, channels: int) -> np.ndarray | None:
    """Decode a file's bytes, (N,), as Ultralytics' `imread` does with the flag that it has for so many channels."""
    if channels not in READ_AS and is_tiff:
        is_read, pages = cv2.imdecodemulti(data, cv2.IMREAD_UNCHANGED)
        if is_read and pages and pages[0].ndim == 3:
            return pages[0]
        if is_read and len(pages) > 1 and all(page.shape == pages[0].shape for page in pages):
            return np.stack(pages, axis=2)
    return cv2.imdecode(data, READ_AS.get(channels, cv2.IMREAD_UNCHANGED))


def _find_files(source: object, suffixes: frozenset[str], what: str, key: str = "source") -> list[Path]:
    if not source:
        raise IMAError(f"{key}= is missing: give a picture, a folder or a pattern such as images/*.jpg")
    path = Path(str(source))
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(path.iterdir())
    elif glob.has_magic(str(source)):
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
    else:
        raise IMAError(f"{key}={source}: no such file or folder")
    files = sorted(p for p in found if p.suffix.lower() in suffixes and p.is_file())
    if not files:
        raise IMAError(f"{key}={source}: no {what} there, looked for {', '.join(sorted(suffixes))}")
    return files


def _would_wait(source: str | Path) -> bool:
    """Whether something other than a file lies there: a pipe would be waited for, and a device may have no end."""
    return Path(source).exists() and not Path(source).is_file()


def _shown(source: str | int | Path) -> str:
    """A source as it is printed and written: an address without its password."""
    return SECRET.sub("***", str(source)) if isinstance(source, str) and "://" in source else str(source)
