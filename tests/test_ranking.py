from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from ultralytics import YOLO

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.ranking import Candidate, _compare, plot, rank, settle, student_maps, table, validation_images
from ima_yolo.students import load_student
from ima_yolo.summary import Row
from ima_yolo.teacher_cost import cost
from ima_yolo.teachers.load import load_teacher
from ima_yolo.teachers.module import ModuleTeacher
from ima_yolo.teachers.view import fit

FPN = "torchvision:fasterrcnn_mobilenet_v3_large_fpn"


def test_a_network_is_most_like_itself(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], lively: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    student = lively(tiny_checkpoint(), tmp_path / "student.pt")
    found = rank(str(student), tiny_data, [FPN, str(student)], 64, 4)
    assert found[0].name == str(student)
    assert found[0].cka == pytest.approx(1.0, abs=1e-3)
    assert found[0].gap == pytest.approx(0.0, abs=1e-3)
    by_name = {candidate.name: candidate for candidate in found}
    assert by_name[FPN].cka < 0.99
    assert 0 < by_name[str(student)].mebibytes < by_name[FPN].mebibytes
    assert by_name[FPN].mebibytes > 70, "its weights alone are more"
    assert min(candidate.milliseconds for candidate in found) > 0
    assert by_name[str(student)].accuracy is not None
    assert by_name[FPN].accuracy is None
    *_, empty, note = table(found).splitlines()
    assert (len(table(found).splitlines()), empty) == (2 + 2 + 2, "")
    assert note == f"{FPN}: its accuracy can be measured for checkpoints of Ultralytics alone"


@pytest.fixture
def no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ima_yolo.ranking.cost", lambda *_: (1.0, 1.0))  # it starts a process


def test_an_untrained_student_has_maps_to_compare_and_always_the_same(
    tiny_data: Path, lively_teacher: Path, no_cost: None
) -> None:
    first = rank("yolo26n.yaml", tiny_data, [str(lively_teacher)], 64, 4)[0]
    torch.rand(1)  # the next weights drawn from the global stream would be others
    second = rank("yolo26n.yaml", tiny_data, [str(lively_teacher)], 64, 4)[0]
    assert (first.cka, first.gap, first.gap_aligned) == (second.cka, second.gap, second.gap_aligned)
    assert first.gap < 0.5, "as it is built, its maps are a constant, and nothing is near that"
    student, _ = load_student("yolo26n.yaml")
    images = validation_images(tiny_data, 64, 4)
    assert min(float(level.std()) for level in student_maps(student, images).maps) < 1e-6, "as it is built"
    settle(student, images)
    assert min(float(level.std()) for level in student_maps(student, images).maps) > 0.05
    norms = [part for part in student.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.03}, "it can be trained as before"


def test_an_untrained_checkpoint_is_settled_as_an_architecture_is_and_one_small_image_will_do(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], lively_teacher: Path, no_cost: None
) -> None:
    settled: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ima_yolo.ranking.settle", lambda _, images: settled.append(len(images)))
        rank(str(tiny_checkpoint()), tiny_data, [str(lively_teacher)], 64, 4)
        rank(str(lively_teacher), tiny_data, [str(lively_teacher)], 64, 4)
    assert settled == [4], "the untrained one alone"
    student, _ = load_student("yolo26n.yaml")
    settle(student, validation_images(tiny_data, 32, 1))
    assert all(bool(level.isfinite().all()) for level in student_maps(student, torch.rand(1, 3, 32, 32)).maps)


def test_candidates_are_shown_images_of_another_size_and_some_of_the_bands(
    tiny_data: Path, lively_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_cost: None
) -> None:
    words = [f"student={lively_teacher}", f"data={tiny_data}", f"candidates={lively_teacher}", "imgsz=64", "images=2"]
    rows = []
    for more in ([], ["ima_teacher_imgsz=128"], ["ima_teacher_channels=2,1,0"]):
        assert main(["teachers", *words, *more, f"output={tmp_path / 'plot.png'}"]) == 0
        rows.append(
            next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"| {lively_teacher}"))
        )
    likeness = [row.split("|")[3].strip() for row in rows]
    assert likeness[0] == "1.000", "its own student"
    assert len(set(likeness)) == 3


def test_a_candidate_without_accuracy_is_a_hollow_mark_among_those_with_one(tmp_path: Path, monkeypatch: Any) -> None:
    from matplotlib.axes import Axes

    drawn: list[tuple[float, str]] = []
    monkeypatch.setattr(Axes, "plot", lambda *a, **k: drawn.append((a[2], k["markerfacecolor"])))
    both = [
        Candidate("a.pt", 0.4, "", 0.2, 0, 0, 7.0, 1.0, (8,)),
        Candidate("timm:x", None, "", 0.5, 0, 0, 9.0, 1.0, (8,)),
    ]
    plot(both, tmp_path / "both.png")
    plot(both[1:], tmp_path / "one.png")
    assert drawn == [(0.4, "#1f77d0"), (0.0, "white"), (9.0, "#1f77d0")]


def test_semantic_teachers_are_ordered_by_miou(
    task_data: Callable[[str], Path], tmp_path: Path, no_cost: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"first.pt": 0.2, "second.pt": 0.7}

    def measured(path: Path, *_: Any, **__: Any) -> Row:
        return Row("", miou=known[path.name])

    monkeypatch.setattr("ima_yolo.ranking.measure", measured)
    for name in ("first.pt", "second.pt"):
        YOLO("yolo26n-sem.yaml").save(tmp_path / name)
    names = [str(tmp_path / name) for name in ("first.pt", "second.pt")]
    found = rank("yolo26n-sem.yaml", task_data("semantic"), names, 64, 2)
    assert [(Path(one.name).name, one.accuracy, one.metric) for one in found] == [
        ("second.pt", 0.7, "mIoU"),
        ("first.pt", 0.2, "mIoU"),
    ]
    assert table(found).startswith("| teacher | mIoU | CKA |")


def test_alignment_closes_a_gap_that_is_a_scale_and_a_shift(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], lively: Callable[[Path, Path], Path], tmp_path: Path
) -> None:
    student, _ = load_student(str(lively(tiny_checkpoint(), tmp_path / "student.pt")))

    def moved(shown: torch.Tensor) -> list[torch.Tensor]:
        return [5 * level + 10 * level.abs().max() for level in student_maps(student, shown).maps]

    teacher = ModuleTeacher("scaled", student, moved)
    likeness, gap, aligned = _compare(student, fit(teacher, (8, 16, 32)), validation_images(tiny_data, 64, 4))
    assert likeness == pytest.approx(1.0, abs=1e-3)
    assert gap > 0.3
    assert aligned < 0.01


def test_validation_images_are_square_and_rgb(tiny_data: Path) -> None:
    images = validation_images(tiny_data, 64, 3)
    assert images.shape == (3, 3, 64, 64)
    assert 0 <= images.min() < images.max() <= 1


def test_the_command_prints_a_table_and_draws_a_plot(
    tiny_data: Path, lively_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"student={lively_teacher}", f"data={tiny_data}", f"candidates={lively_teacher}", "imgsz=64", "images=2"]
    assert main(["teachers", *words, f"output={tmp_path / 'plot.png'}"]) == 0
    out = capsys.readouterr().out
    assert "| teacher | mAP50-95 | CKA |" in out
    assert "Decide by `ima-yolo compare`" in out
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "student= is missing"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=a.pt", "image=3"], "'image' is not a setting"),
        (["student=yolo26n.yaml", "data=gone.yaml", "candidates=a.pt"], "data=gone.yaml: 'gone.yaml' does not exist"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=a.pt", "images=0"], "images=0: expected a whole number"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=a.pt", "output=no/x.png"], "output=no"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=a.pt", "output=x.xyz"], "output=x.xyz: expected"),
        (["student=yolo26n.yaml", "data=d.yaml", "candidates=,"], "names nothing between its commas"),
        (
            ["student=yolo26n.yaml", "data=d.yaml", "candidates=a,b,c", "ima_teacher_weights=x,y"],
            "each of 3 candidates",
        ),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teachers", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_accuracy_orders_the_candidates_and_likeness_those_without(
    tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"weak": (0.1, 0.9), "good": (0.5, 0.1), "unlike": (None, 0.2), "alike": (None, 0.8)}

    def look(*args: Any) -> Candidate:
        accuracy, cka = known[args[4]]
        return Candidate(args[4], accuracy, "", cka, 0.0, 0.0, 1.0, 1.0, (8,))

    monkeypatch.setattr("ima_yolo.ranking.load_teacher", lambda *_: None)
    monkeypatch.setattr("ima_yolo.ranking._look", look)
    found = rank("yolo26n.yaml", tiny_data, list(known), 64, 2)
    assert [candidate.name for candidate in found] == ["good", "weak", "alike", "unlike"]


def test_candidates_without_weights_of_their_own_take_those_that_are_given(
    tiny_data: Path, lively_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher = load_teacher(FPN)
    state = {f"backbone.{key}": value for key, value in teacher._model.state_dict().items()}
    torch.save(state, tmp_path / "own.pth")
    fitting, random = FPN, "torchvision:fcos_resnet50_fpn"
    words = [f"student={lively_teacher}", f"data={tiny_data}", f"candidates={lively_teacher},{fitting}"]
    words += ["imgsz=64", "images=2", f"output={tmp_path / 'plot.png'}"]
    assert main(["teachers", *words, f"ima_teacher_weights={tmp_path / 'own.pth'}"]) == 0
    assert f"| {fitting} | - |" in capsys.readouterr().out
    words[2] = f"candidates={lively_teacher},{random}"
    assert main(["teachers", *words, f"ima_teacher_weights={tmp_path / 'own.pth'}"]) == 2
    assert f"do not fit teacher={random}" in capsys.readouterr().err


def test_grey_and_damaged_images_are_read_as_the_data_says(tiny_data: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_data.parent, tmp_path / "grey")
    data = tmp_path / "grey" / "data.yaml"
    data.write_text(data.read_text().replace(str(tiny_data.parent), str(data.parent)) + "channels: 1\n")
    next((data.parent / "images" / "val").glob("*.png")).write_bytes(b"no image")
    assert validation_images(data, 64, 4).shape == (3, 1, 64, 64)
    (found,) = rank("yolo26n.yaml", data, [FPN], 64, 3)
    assert found.levels == (32,)


def test_a_cost_that_cannot_be_measured_is_one_line() -> None:
    with pytest.raises(IMAError, match=r"teacher=gone.pt: its cost could not be measured \(teacher=gone.pt: file not"):
        cost("gone.pt", None, (1, 3, 64, 64), torch.device("cpu"))
