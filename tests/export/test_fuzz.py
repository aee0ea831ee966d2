"""Damaged and unusual input: pictures and models mutated at random give a result or one clear error, never a crash."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ima_yolo.export.predict import run

PICTURES, MODELS = 500, 200
RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9]]]).transpose(0, 2, 1)
TIME_LIMIT = 240  # seconds for all mutations of one kind

# Runs in a process of its own, so that a crash inside a library is a failure of one test and not of the whole run.
TRY_MODELS = """
import sys
from pathlib import Path
import numpy as np
from ima_yolo.errors import IMAError
from ima_yolo.export import Detector
worked = refused = 0
for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, file=sys.stderr, flush=True)
    try:
        Detector(path, threads=1)(np.zeros((50, 80, 3), np.uint8))
        worked += 1
    except IMAError as error:
        assert "\\n" not in str(error)
        assert path.name in str(error)
        refused += 1
print(worked, refused)
"""


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut off, overwrite, remove, double or swap parts of a file."""
    bytes_ = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        start, stop = sorted(rng.integers(0, len(bytes_) + 1, 2).tolist())
        kind = rng.integers(5)
        if kind == 0:
            del bytes_[max(stop, 1) :]
        elif kind == 1:
            for at in rng.integers(0, len(bytes_), rng.integers(1, 20)):
                bytes_[at] = rng.integers(256)
        elif kind == 2:
            del bytes_[start : start + rng.integers(1, 64)]
        elif kind == 3:
            bytes_[start:start] = bytes_[start : start + 64]
        else:
            bytes_[start : start + 16] = rng.bytes(len(bytes_[start : start + 16]))
        if not bytes_:
            break
    return bytes(bytes_)


@pytest.fixture(scope="module")
def seeds() -> list[tuple[str, bytes]]:
    """A small picture in every common format, depth and colour."""
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (80, 60), interpolation=cv2.INTER_CUBIC)
    made = [(suffix, cv2.imencode(suffix, image)[1].tobytes()) for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff")]
    made.append((".png", cv2.imencode(".png", image.astype(np.uint16) << 8)[1].tobytes()))
    made.append((".png", cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_BGR2BGRA))[1].tobytes()))
    made.append((".jpg", cv2.imencode(".jpg", image[..., 0])[1].tobytes()))
    return made


def test_mutated_pictures(toy: Callable[..., Path], seeds: list[tuple[str, bytes]], tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for number in range(PICTURES):
        suffix, data = seeds[number % len(seeds)]
        (folder / f"{number:04}{suffix}").write_bytes(mutated(data, rng))
    words = ["predict", f"model={toy(RAW)}", f"source={folder}", "save_txt=True", "threads=1"]
    done = subprocess.run(
        [sys.executable, "-m", "ima_yolo", *words], capture_output=True, text=True, timeout=TIME_LIMIT, errors="replace"
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("image ")]
    unread = sum("cannot be read, left out (" in line for line in lines)
    assert done.returncode == 1, done.stderr[-2000:]
    assert len(lines) == PICTURES
    assert 50 < unread < PICTURES - 50  # both ways of going on were taken
    assert f"{unread} pictures could not be read" in done.stdout


def test_mutated_models(toy: Callable[..., Path], graphs: dict[str, Path], opens_quietly: bool, tmp_path: Path) -> None:
    rng, folder = np.random.default_rng(1), tmp_path / "models"
    folder.mkdir()
    small, real = toy(RAW).read_bytes(), graphs["nms-free"].read_bytes()
    for number in range(MODELS):
        # Of the large file mutations near the end meet nodes, shapes and metadata rather than weights.
        data = mutated(small, rng) if number % 4 else real[:-20000] + mutated(real[-20000:], rng)
        (folder / f"{number:03}.onnx").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", TRY_MODELS, folder], capture_output=True, text=True, timeout=TIME_LIMIT, errors="replace"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    worked, refused = (int(count) for count in done.stdout.split()[-2:])
    assert worked + refused == MODELS
    assert refused > MODELS / 4
    if opens_quietly:
        assert done.stdout == f"{worked} {refused}\n", "the output belongs to the results"


def test_unusual_pictures_in_one_folder(
    toy: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    colour = Image.new("RGB", (40, 20), (200, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    colour.save(folder / "a_turned.jpg", exif=exif)
    colour.save(folder / "b_animated.webp", save_all=True, append_images=[colour.rotate(180)] * 2)
    colour.save(folder / "c_animated.png", save_all=True, append_images=[colour.rotate(180)] * 2)
    colour.convert("L").save(folder / "d_grey.png")
    colour.convert("RGBA").save(folder / "e_alpha.png")
    colour.convert("P").save(folder / "f_palette.png")
    colour.convert("CMYK").save(folder / "g_cmyk.jpg")
    Image.fromarray(np.full((20, 40), 40000, np.uint16)).save(folder / "h_deep.png")
    colour.resize((1, 1)).save(folder / "i_one_pixel.png")
    colour.resize((5000, 2)).save(folder / "j_thin.png")
    (folder / "k_empty.png").write_bytes(b"")
    (folder / "l_text.jpg").write_text("no picture")
    assert run(toy(RAW), folder, save=False) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert ": 20x40 " in lines[0]
    assert all(": 40x20 1 square" in line for line in lines[1:8])
    assert ": 1x1 " in lines[8]
    assert ": 5000x2 " in lines[9]
    assert lines[10].endswith("left out (is empty)")
    assert lines[11].endswith("left out (is damaged, or no picture that OpenCV reads)")
    assert lines[12].endswith("2 pictures could not be read")


def test_a_huge_picture_is_refused_before_it_is_decoded(toy: Callable[..., Path], tmp_path: Path) -> None:
    Image.new("1", (30000, 20000)).save(tmp_path / "huge.png")
    code = (
        "import sys; from ima_yolo.cli import main; code = main(sys.argv[1:]);"
        "from ima_yolo.export.machine import peak_memory; print(peak_memory() // 10**6); sys.exit(code)"
    )
    words = ["predict", f"model={toy(RAW)}", f"source={tmp_path / 'huge.png'}"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "left out (is damaged, or too large (OPENCV_IO_MAX_IMAGE_PIXELS))" in done.stdout
    assert int(done.stdout.split()[-1]) < 1500  # MB; its 600 million pixels alone would take 1800


def test_an_animation_gives_its_frames(
    toy: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.new("RGB", (40, 20), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=100)
    assert run(toy(RAW), tmp_path / "x.gif", save=False) == 0
    assert [line.split(":")[0].split()[-1] for line in capsys.readouterr().out.splitlines()[:-1]] == ["0", "1", "2"]


def test_a_stream_that_nobody_sends(toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(toy(RAW), "http://127.0.0.1:9/none.mjpg", save=False) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("cannot be read, left out (cannot be opened as a video, stream or camera)")
