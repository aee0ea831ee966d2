"""Pictures found and read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export.sources import find_images, find_sources, read_picture


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


def test_several_sources_with_commas(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = folder / "x, y.png"
    odd.write_bytes(b"x")
    assert find_sources(f"{folder / 'b.png'},0, rtsp://a/b?c=1") == [str(folder / "b.png"), 0, "rtsp://a/b?c=1"]
    assert find_sources(f"[{folder / 'b.png'},{odd}]") == [str(folder / "b.png"), str(odd)]
    assert find_sources(str(odd)) == [str(odd)]
    assert find_sources(f"{folder}/x, *.png") == [str(odd)]
    assert find_sources("http://127.0.0.1/a,b.mjpg") == ["http://127.0.0.1/a,b.mjpg"]
    with pytest.raises(IMAError, match=r"^source=gone\.png: no such file"):
        find_sources(f"{odd},gone.png")


def test_a_text_file_of_sources(folder: Path, tmp_path: Path) -> None:
    text = folder / "all.txt"
    text.write_text(f"b.png\n\n  deeper \n{folder / 'a.JPG'}\nrtsp://a/b\n")
    found = find_sources(text)
    assert found == [str(folder / "b.png"), str(folder / "deeper/c.png"), str(folder / "a.JPG"), "rtsp://a/b"]
    for content, message in (
        (b"\n", "it has none"),
        (b"\xff\xfe\x00", "cannot be read as a list"),
        (b"all.txt", "in a l"),
    ):
        text.write_bytes(content)
        with pytest.raises(IMAError, match=message):
            find_sources(str(text))


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
