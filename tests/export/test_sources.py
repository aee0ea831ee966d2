"""Pictures found and read."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export.predict import run
from ima_yolo.export.sources import find_images, find_sources, is_endless, is_single_picture, read_frames, read_picture


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


def test_of_several_sources_one_may_be_missing_but_not_all(folder: Path) -> None:
    assert find_sources(f"gone.png,{folder / 'b.png'}") == ["gone.png", str(folder / "b.png")]
    assert find_sources(["gone.png", 0]) == ["gone.png", 0]
    with pytest.raises(IMAError, match=r"^source=gone\.png: no such file"):
        find_sources("gone.png,lost.png")
    text = folder / "all.txt"
    text.write_text("b.png\ngone.png\n")
    assert find_sources(text) == [str(folder / "b.png"), "gone.png"]
    text.write_text("gone.png\n")
    with pytest.raises(IMAError, match=r"^source=gone\.png: no such file"):
        find_sources(text)


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_text_file_with_a_camera_and_a_mark_of_its_encoding(start: str, folder: Path) -> None:
    text = folder / "all.txt"
    text.write_text(f"{start}b.png\n0\n", encoding="utf-8")
    assert find_sources(text) == [str(folder / "b.png"), 0]
    (folder / "0").mkdir()
    (folder / "0" / "d.png").write_bytes(b"x")
    assert find_sources(text) == [str(folder / "b.png"), str(folder / "0" / "d.png")]


@pytest.mark.parametrize(
    ("source", "is_picture"),
    [
        ("http://host/a.png", True),
        ("HTTPS://host/deep/a.JPG?size=1", True),
        ("http://host/live.mjpg", False),
        ("http://host/clip.mp4", False),
        ("rtsp://host/a.png", False),
        ("http://host/show?file=a.png", False),
    ],
)
def test_addresses_of_pictures_and_of_streams(source: str, is_picture: bool) -> None:
    assert is_single_picture(source) is is_picture
    assert is_endless(source) is not is_picture


def test_a_text_file_of_sources(folder: Path, tmp_path: Path) -> None:
    text = folder / "all.txt"
    text.write_text(f"# a note\nb.png\n\n  deeper \n{folder / 'a.JPG'}\nrtsp://a/b\n")
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["p.png", "p.mp4"])
def test_a_pipe_among_several_is_not_waited_for(name: str, folder: Path) -> None:
    os.mkfifo(folder / name)
    first, second = read_frames(find_sources([str(folder / "b.png"), str(folder / name)]))
    assert (second.image, second.fault) == (None, "cannot be opened (no file)")
    assert first.name == str(folder / "b.png")


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


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Forty noisy frames of 200x100 px, whose count stands at the front of the file."""
    rng, path = np.random.default_rng(0), tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (200, 100))
    assert writer.isOpened()
    for _ in range(40):
        writer.write(rng.integers(0, 256, (100, 200, 3), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("stride", [1, 3])
def test_a_video_that_was_cut_off_ends_with_one_fault(stride: int, clip: Path) -> None:
    whole = list(read_frames([str(clip)], stride, None))
    assert [frame.number for frame in whole] == list(range(0, 40, stride))
    assert not any(frame.fault for frame in whole)
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    *frames, last = read_frames([str(clip)], stride, None)
    assert [frame.number for frame in frames] == list(range(0, len(frames) * stride, stride))
    assert not any(frame.fault for frame in frames)
    assert 0 < len(frames) < len(whole)
    assert re.fullmatch(r"is damaged or cut off: ends after (18|19|20) of 40 frames", last.fault)
    assert len(list(read_frames([str(clip)], stride, 2))) == 2  # which were all that was asked for


def test_a_cut_video_gives_exit_code_1(
    clip: Path, toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy(np.zeros((1, 6, 2)))
    assert run(model, clip, save=False) == 0
    assert "left out" not in capsys.readouterr().out
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    assert run(model, clip, save=False) == 1
    out = capsys.readouterr().out
    assert out.count("left out (is damaged or cut off") == 1
    assert out.endswith(", 1 pictures could not be read\n")


@pytest.mark.parametrize("durations", [[100, 100, 100, 100], [100, 0, 100, 0], [0, 0, 0, 0]])
def test_pictures_of_a_gif_may_be_shown_for_no_time(durations: list[int], tmp_path: Path) -> None:
    from PIL import Image

    first, *others = (Image.new("RGB", (40, 20), (level, level, level)) for level in (0, 60, 120, 180))
    first.save(tmp_path / "x.gif", save_all=True, append_images=others, duration=durations)
    frames = list(read_frames([str(tmp_path / "x.gif")], 1, None))
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [int(frame.image.mean()) for frame in frames] == pytest.approx([0, 60, 120, 180], abs=3)
    assert [frame.number for frame in read_frames([str(tmp_path / "x.gif")], 2, None)] == [0, 2]
