"""Pictures found and read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export.sources import find_images, read_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "deeper").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "deeper/c.png", "notes.txt"):
        (root / name).write_bytes(b"x")
    return root


def test_a_folder_a_pattern_and_a_file(folder: Path) -> None:
    assert [p.name for p in find_images(folder)] == ["a.JPG", "b.png"]
    assert [p.name for p in find_images(str(folder / "*.png"))] == ["b.png"]
    assert [p.name for p in find_images(str(folder / "**" / "*.png"))] == ["b.png", "c.png"]
    assert find_images(folder / "notes.txt") == [folder / "notes.txt"]


def test_a_file_name_with_pattern_characters_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "cell[1].png"
    file.write_bytes(b"x")
    assert find_images(file) == [file]


@pytest.mark.parametrize(("source", "message"), [("none", "no such file"), ("*.bmp", "no pictures"), (".", "no pict")])
def test_nothing_there(source: str, message: str) -> None:
    with pytest.raises(IMAError, match=f"^source=.*{message}"):
        find_images(source)


@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_of_any_depth_is_read_as_bgr(tmp_path: Path, channels: int | None, dtype: type) -> None:
    step = 1 if dtype is np.uint8 else 256
    shape = (6, 8) if channels is None else (6, 8, channels)
    cv2.imwrite(str(tmp_path / "x.png"), np.full(shape, 200 * step, dtype))
    image = read_picture(tmp_path / "x.png").image
    assert (image.shape, image.dtype) == ((6, 8, 3), np.uint8)
    assert (image == 200).all()


def test_names_outside_ascii(tmp_path: Path) -> None:
    cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tofile(tmp_path / "血球.png")
    assert read_picture(tmp_path / "血球.png").image.shape == (2, 2, 3)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (40, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert read_picture(tmp_path / "x.jpg").image.shape == (40, 20, 3)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_damage_gives_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    assert read_picture(tmp_path / "x.png").image is None


def test_a_folder_or_a_missing_file_gives_none(tmp_path: Path) -> None:
    assert read_picture(tmp_path).image is None
    assert read_picture(tmp_path / "missing.png").image is None
