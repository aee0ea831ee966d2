"""`ima-yolo train` from its words to its last line, for the tasks and teachers beside YOLO detectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ima_yolo.cli import main
from ima_yolo.commands.train import weaker_teachers
from ima_yolo.summary import Row

STUDENTS = {
    task: f"yolo26n-{short}.yaml"
    for task, short in (("segment", "seg"), ("semantic", "sem"), ("pose", "pose"), ("obb", "obb"))
}


@pytest.mark.parametrize("task", STUDENTS)
def test_a_task_ends_with_its_table(
    task: str, task_data: Callable[[str], Path], lively_teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    teachers = f"{lively_teacher},torchvision:fcos_resnet50_fpn" if task == "segment" else lively_teacher
    words = [f"teacher={teachers}", f"student={STUDENTS[task]}", f"data={task_data(task)}", f"project={tmp_path}"]
    caplog.set_level("INFO")
    assert main(["train", *words, "epochs=1", "imgsz=64", "batch=4", "workers=0", "plots=False"]) == 0
    lines = caplog.text.splitlines()
    assert any(line.startswith("student") for line in lines), "the table has a row of the student"
    assert any("is a model for detect, so its accuracy for" in line for line in lines)
    assert ("mIoU" in caplog.text) is (task == "semantic")
    assert (tmp_path / "train" / "side_by_side.png").exists()


def test_a_teacher_that_holds_its_student_back_is_named() -> None:
    rows = [
        Row("teacher a", map50_95=0.2),
        Row("teacher b", map50_95=0.5),
        Row("teacher c"),
        Row("student", map50_95=0.3),
    ]
    assert weaker_teachers(rows) == "teacher a"
    assert weaker_teachers([Row("teacher", map50_95=0.3), Row("student", map50_95=0.3)]) == ""
    assert weaker_teachers([Row("student")]) == ""


@pytest.mark.parametrize("case", ["single_cls", "a class without a name"])
def test_the_picture_shows_what_the_training_saw(
    case: str, tiny_data: Path, lively_teacher: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [f"teacher={lively_teacher}", "student=yolo26n.yaml", f"project={tmp_path}"]
    if case == "single_cls":
        words += [f"data={tiny_data}", "single_cls=True"]
    else:
        (copy := tmp_path / "data.yaml").write_text(
            f"path: {tiny_data.parent}\ntrain: images/train\nval: images/val\nnames: [first, second]\n"
        )
        words += [f"data={copy}"]
    caplog.set_level("INFO")
    assert main(["train", *words, "epochs=1", "imgsz=64", "batch=4", "workers=0", "plots=False"]) == 0
    assert (tmp_path / "train" / "side_by_side.png").exists()
    assert "next     ima-yolo export" in caplog.text
