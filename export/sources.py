"""Where pictures come from: a file, a folder or a pattern."""

from __future__ import annotations

import glob
from pathlib import Path

import cv2
import numpy as np

from ima_yolo.errors import IMAError

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".dib", ".dng", ".heic", ".heif", ".jp2", ".jpe", ".jpeg", ".jpg"}
    | {".mpo", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""File endings that count as pictures in a folder or a pattern; one that OpenCV cannot read is reported."""


def find_images(source: str | Path | None) -> list[Path]:
    """List the pictures that a source names, sorted.

    Args:
        source: A picture file, a folder (not searched deeper) or a glob pattern; None is refused.

    Raises:
        IMAError: Nothing is there, or no file in it is a picture.
    """
    if not source:
        raise IMAError("source= is missing: give a picture, a folder or a pattern such as images/*.jpg")
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = list(path.iterdir())
    elif glob.has_magic(str(source)):
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]
    else:
        raise IMAError(f"source={source}: no such file or folder")
    images = sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not images:
        raise IMAError(f"source={source}: no pictures there, looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return images


def read_image(path: Path) -> np.ndarray | None:
    """Read a picture file as (H, W, 3) BGR uint8, turned upright by its EXIF note; None if it cannot be read."""
    try:
        # Decoded from bytes, because cv2.imread does not open every file name on every system.
        data = np.fromfile(path, np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except (OSError, cv2.error):
        return None
