"""The deployment kit: complete, its commands as typed, and a self-check that notices a difference."""

from __future__ import annotations

import base64
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.export import ClassMap, Detections, Detector
from ima_yolo.export.expected import differs, form
from ima_yolo.export.kit import self_check, write_kit

RAW = np.array([[[32, 32, 32, 16, 0.1, 0.9], [16, 32, 8, 8, 0.5, 0.1]]]).transpose(0, 2, 1)


def test_a_kit_is_complete_and_checks_itself(
    graphs: dict[str, Path], photos: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "best.onnx"
    model.write_bytes(graphs["raw"].read_bytes())
    kit = write_kit(model, photos)
    names = sorted(path.name for path in kit.iterdir())
    assert names == ["README.md", "best.onnx", "expected.json", "sample.jpg", "self_check.py"]
    assert self_check(kit) == 0
    assert capsys.readouterr().out == "self-check passed\n"
    done = subprocess.run([sys.executable, kit / "self_check.py"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "self-check passed\n"), done.stderr
    with pytest.raises(IMAError, match="exists already"):
        write_kit(model)


@pytest.mark.parametrize("change", ["box", "score", "class", "fewer"])
def test_a_difference_fails_the_check(
    change: str, toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kit = write_kit(toy(RAW))
    content = json.loads((kit / "expected.json").read_text())
    assert len(content["boxes"]) == 2
    if change == "box":
        content["boxes"][1][0] += 3
    elif change == "score":
        content["detections"][0]["confidence"] -= 0.02
    elif change == "class":
        content["detections"][0]["class"] = 0
    else:
        del content["boxes"][0], content["detections"][0]
    (kit / "expected.json").write_text(json.dumps(content))
    assert self_check(kit) == 1
    assert capsys.readouterr().out.startswith("self-check FAILED: ")


TASKS = {"pose": "yolo26n-pose", "segment": "yolo26n-seg", "obb": "yolo26n-obb", "semantic": "yolo26n-sem"}


@pytest.fixture(scope="module")
def kit_of(
    written: Callable[..., Path], photos: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Factory of kits of a task, each in a folder of its own."""

    def make(task: str) -> Path:
        model = tmp_path_factory.mktemp(task) / "best.onnx"
        model.write_bytes(written(TASKS[task]).read_bytes())
        return write_kit(model, photos)

    return make


def change(content: dict[str, Any], part: str) -> None:
    """Change one part of what a kit expects, by more than another processor would."""
    if part == "map":
        classes = cv2.imdecode(np.frombuffer(base64.b64decode(content["map"]), np.uint8), cv2.IMREAD_UNCHANGED)
        classes[: len(classes) // 20] += 1
        content["map"] = base64.b64encode(cv2.imencode(".png", classes)[1].tobytes()).decode()
        return
    entry = max(content["detections"], key=lambda entry: len(entry.get("segments", {}).get("x", ())))
    if part == "outlines":
        entry["segments"]["x"] = [x + 20 for x in entry["segments"]["x"]]
    elif part == "corners":
        entry["box"]["x1"] += 3
    else:
        column, amount = {"keypoints": ("x", 3), "visibility": ("visible", -0.1)}[part]
        entry["keypoints"][column][0] += amount


@pytest.mark.parametrize(
    ("task", "part", "fault"),
    [
        ("pose", "keypoints", "the keypoints of the "),
        ("pose", "visibility", "the keypoints of the "),
        ("segment", "outlines", "the outlines of the "),
        ("obb", "corners", "the corners of the "),
        ("semantic", "map", "5.0% of the pixels have another class"),
    ],
)
def test_more_than_the_box_is_compared(
    task: str, part: str, fault: str, kit_of: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    kit = kit_of(task)
    assert self_check(kit) == 0
    assert capsys.readouterr().out == "self-check passed\n"
    content = json.loads((kit / "expected.json").read_text())
    change(content, part)
    (kit / "expected.json").write_text(json.dumps(content))
    assert self_check(kit) == 1
    assert capsys.readouterr().out.startswith(f"self-check FAILED: {fault}")


def test_a_map_of_another_size_or_none_is_a_difference() -> None:
    found = ClassMap(np.zeros((4, 6), np.uint8), {0: "a", 1: "b"}, (4, 6))
    assert differs(form(found), found) == ""
    other = ClassMap(np.zeros((6, 4), np.uint8), found.names, (6, 4))
    assert differs(form(other), found) == "a map of (4, 6) pixels in place of (6, 4)"
    assert differs({"map": ""}, found) == "a map of (4, 6) pixels in place of none"


def test_corners_may_begin_with_any_of_them() -> None:
    turned = [np.array([[50, 40, 30, 20, angle]], np.float32) for angle in (0.0, np.pi)]
    box = np.array([[35, 30, 65, 50]], np.float32)
    one, other = (
        Detections(box, np.ones(1, np.float32), np.zeros(1, int), {0: "a"}, (100, 100), rotated=rotated)
        for rotated in turned
    )
    assert differs(form(one), other) == ""


def test_a_kit_in_which_nothing_is_found_is_refused(
    toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy(RAW * [[[1], [1], [1], [1], [0], [0]]])
    assert main(["export", f"model={model}", "kit=True"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "the model finds nothing in the sample pictures" in line
    assert "images=" in line
    assert [path.name for path in model.parent.iterdir()] == ["toy.onnx"]


def test_the_sample_is_the_first_picture_in_which_something_is_found(
    graphs: dict[str, Path], photos: list[Path], tmp_path: Path
) -> None:
    model, empty = tmp_path / "best.onnx", tmp_path / "empty.png"
    model.write_bytes(graphs["raw"].read_bytes())
    cv2.imwrite(str(empty), np.full((96, 96, 3), 114, np.uint8))
    assert not len(Detector(model)(cv2.imread(str(empty))))
    assert (write_kit(model, [empty, photos[1]]) / "sample.jpg").read_bytes() == photos[1].read_bytes()


def test_a_model_that_finds_little_is_checked_at_a_lower_threshold(toy: Callable[..., Path]) -> None:
    kit = write_kit(toy(RAW * [[[1], [1], [1], [1], [0.1], [0.1]]]))
    assert json.loads((kit / "expected.json").read_text())["conf"] == 0.01


def test_an_incomplete_kit_is_told(toy: Callable[..., Path]) -> None:
    kit = write_kit(toy(RAW))
    (kit / "expected.json").write_text("{}")
    with pytest.raises(IMAError, match="the kit is not complete"):
        self_check(kit)


@pytest.mark.parametrize("certainty", [1, 0.05])
def test_the_commands_of_its_readme(
    certainty: float, toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy(RAW * np.array([[[1]] * 4 + [[certainty]] * 2]))
    assert main(["export", f"model={model}", "kit=True"]) == 0
    kit = model.with_name("toy_kit")
    assert f"kit {kit}" in capsys.readouterr().out
    monkeypatch.chdir(kit)
    text = Path("README.md").read_text()
    commands = [
        line.split()[1:] for line in text.splitlines() if line.startswith("ima-yolo predict") and "sample" in line
    ]
    assert len(commands) == 1
    assert main(commands[0]) == 0
    assert "1 disc, 1 square" in capsys.readouterr().out
    assert "1 disc, 1 square" in text
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out == "1 disc, 1 square\n"


def test_a_kit_that_is_in_the_way_stops_before_the_export(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x_kit").mkdir()
    assert main(["export", f"model={checkpoint}", "imgsz=96", f"output={tmp_path / 'x.onnx'}", "kit=True"]) == 2
    assert "x_kit exists already" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


def test_a_kit_of_an_exported_file_with_a_sample_of_ones_own(toy: Callable[..., Path], photos: list[Path]) -> None:
    model = toy(RAW)
    assert main(["export", f"model={model}", "kit=True", f"images={photos[0]}"]) == 0
    assert (model.with_name("toy_kit") / "sample.jpg").read_bytes() == photos[0].read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["kit=True", "output=there.onnx"], "output=there.onnx: the kit of an .onnx file is written beside it; leave "),
        (["kitt=True"], "'kitt' is not a setting (did you mean 'kit'?)"),
        (["kit=True", "imagse=a.png"], "'imagse' is not a setting (did you mean 'images'?)"),
        (["quantize=8", "data=x.yaml", "calibratoin=entropy"], "(did you mean 'calibration'?)"),
    ],
)
def test_words_that_would_be_ignored_are_refused(
    words: list[str], message: str, toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = toy(RAW)
    assert main(["export", f"model={model}", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in model.parent.iterdir()] == ["toy.onnx"]


def test_pictures_that_are_not_there_are_told_by_their_key(
    toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", f"model={toy(RAW)}", "kit=True", "images=gone"]) == 2
    assert "images=gone: no such file or folder" in capsys.readouterr().err


def test_a_missing_sample_is_named(toy: Callable[..., Path]) -> None:
    kit = write_kit(toy(RAW))
    (kit / "sample.jpg").unlink()
    with pytest.raises(IMAError, match=r"sample\.jpg: cannot be read as a picture"):
        self_check(kit)


@pytest.mark.parametrize(
    "content", ["{}", "[]", "no JSON", '{"model": 1}', '{"model": "toy.onnx", "sample": "gone.jpg"}']
)
def test_a_check_that_cannot_compare_is_one_line_on_the_device(content: str, toy: Callable[..., Path]) -> None:
    kit = write_kit(toy(RAW))
    (kit / "expected.json").write_text(content)
    done = subprocess.run([sys.executable, kit / "self_check.py"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("self-check FAILED: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_name_with_a_blank_or_like_a_drawn_sample(
    toy: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = write_kit(toy(RAW, "sample_of mine.onnx"))
    assert self_check(kit) == 0
    monkeypatch.chdir(kit)
    assert sorted(path.name for path in Path().glob("sample*")) == ["sample.jpg", "sample_of mine.onnx"]
    text = Path("README.md").read_text()
    words = next(shlex.split(line) for line in text.splitlines() if line.startswith("ima-yolo predict"))
    assert main(words[1:]) == 0
    assert "1 disc, 1 square" in capsys.readouterr().out
    assert 'pip install ".[edge]"' in text  # as README.md says; nothing of that name need be on an index
