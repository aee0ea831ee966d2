"""The benchmark of a step: what it times is what trains, its figures by hand, and its files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ima_yolo.cli import main
from ima_yolo.errors import IMAError
from ima_yolo.features import Features
from ima_yolo.speed.case import ARMS, Case
from ima_yolo.speed.memory import peak
from ima_yolo.speed.parts import time_parts
from ima_yolo.speed.report import parts_of, parts_table, peaks_of, plot, summarize, table
from ima_yolo.speed.rounds import alternate, ratio
from ima_yolo.speed.run import run
from ima_yolo.speed.steps import Step, teacher_file

CPU = torch.device("cpu")
SMALL = Case("yolo26n.yaml", "yolo26s.yaml", imgsz=64, batch=2)


def test_rounds_alternate_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    actions = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = alternate(actions, 2, CPU, lambda _: None)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_a_ratio_is_taken_round_by_round() -> None:
    seconds = {"ours": [3.0, 30.0, 4.0], "plain": [1.0, 10.0, 1.0], "teacher": [2.0, 20.0, 1.0]}
    assert ratio(seconds, "ours", ("plain", "teacher")) == pytest.approx(1.0)
    assert ratio(seconds, "ours", ("plain",)) == pytest.approx(3.0)


@pytest.mark.parametrize("arm", ARMS)
def test_a_step_trains_the_student_and_not_the_teacher(arm: str, tmp_path: Path) -> None:
    step = Step(SMALL, arm, CPU, teacher_file(SMALL.teacher, tmp_path))
    before = {name: value.clone() for name, value in step.model.named_parameters()}
    step()
    moved = {name for name, value in step.model.named_parameters() if not torch.equal(value, before[name])}
    student = [name for name in moved if "teacher" not in name]
    assert len(student) == len(moved) > 50
    if arm == "ours":
        assert "ima.criterion.members.0.levels.8.adapter.weight" in moved
    if arm == "builtin":
        assert any(name.startswith("projector") for name in moved)


@pytest.mark.parametrize("student", ["yolo26n-few.yaml", "yolo26n.yaml"])
def test_checkpoints_keep_their_classes(student: str, tiny_checkpoint: Callable[..., Path]) -> None:
    """Of which the labels are drawn, a new student is built for, and the heads are compared."""
    teacher = tiny_checkpoint("yolo26s-few.yaml", seed=1)
    case = Case(str(tiny_checkpoint(student) if "few" in student else student), str(teacher), imgsz=64, batch=2)
    assert list(case.class_names().values()) == ["disc", "square", "triangle"]
    assert case.builtin_takes
    for arm in ARMS:
        Step(case, arm, CPU, teacher)()
    step = Step(case, "ours", CPU, teacher)
    assert step.model.model[-1].nc == 3
    parts = time_parts(case, CPU, teacher, 1, lambda _: None)["alone"]
    assert "terms on the heads, forward and backward" in parts, "their classes are the same"


def test_rtdetr_is_known_by_its_head(tmp_path: Path) -> None:
    assert not Case("yolo26n.yaml", "yolov8s-rtdetr.yaml").builtin_takes
    assert not Case("yolo26n.yaml", str(teacher_file("yolov8s-rtdetr.yaml", tmp_path))).builtin_takes
    assert SMALL.builtin_takes


def test_other_levels_than_the_teacher_s_are_measured_without_ultralytics(tmp_path: Path) -> None:
    """Whose distillation ends with an error there."""
    case = Case("yolo26n.yaml", "yolov8n-p6.yaml", imgsz=64, batch=2)
    assert case.arms == ["plain", "ours"]
    assert Case("yolo26n.yaml", str(teacher_file(case.teacher, tmp_path)), 64).arms == ["plain", "ours"]
    Step(case, "ours", CPU, teacher_file(case.teacher, tmp_path))()
    with pytest.raises(ValueError, match="same number of feature levels"):
        Step(case, "builtin", CPU, teacher_file(case.teacher, tmp_path))


def test_a_file_for_each_case_and_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    used = {"ours": {"peak": 900.0, "added": 300.0}, "builtin": {"peak": 1000.0, "added": 600.0}}
    monkeypatch.setattr("ima_yolo.speed.run.peak", lambda case, arm, *_: used.get(arm, {"peak": 1.0, "added": 1.0}))
    report = run([SMALL], CPU, 2, tmp_path, said.append)
    kept = json.loads((tmp_path / "yolo26n-yolo26s-64-2.json").read_text())
    assert kept["seconds"].keys() == {"plain", "builtin", "ours", "teacher", "teacher as run"}
    assert all(found["median"] > 0 for found in kept["seconds"].values())
    assert 0 < kept["ratios"]["ours / floor"] < 20
    assert 0 < kept["ratios"]["ours / floor as run"] < 20
    assert {name: found["every"] for name, found in kept["periodic"].items()} == {
        "automatic weight": 10,
        "gate of the heads": 5,
        "watch over the terms": 20,
    }
    assert kept["ratios"]["memory"] == 0.9
    text = report.read_text()
    assert kept["date"].endswith(" UTC")
    for words in (
        "yolo26n <- yolo26s, 64 px, batch 2",
        "| backward pass, of everything |",
        "| teacher to its neck |",
        kept["machine"]["device"],
        f"code {kept['code']['ima_yolo']}; measured {kept['date'][:10]}",
    ):
        assert words in text
    assert (tmp_path / "step.png").stat().st_size > 10_000

    monkeypatch.setattr("ima_yolo.speed.run.alternate", lambda *_: pytest.fail("measured again"))
    assert run([SMALL], CPU, 2, tmp_path, said.append).read_text() == text
    assert "measured already" in said[-1]


def test_what_cannot_be_run_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(IMAError, match="64 px, batch 2: the step called 'ours' cannot be run") as caught:
        peak(SMALL, "ours", CPU, 1, tmp_path / "gone.pt")
    assert "teacher=yolo26s.yaml: file not found" in str(caught.value), "named as it was typed"
    assert "\n" not in str(caught.value)


def test_memory_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = peak(SMALL, "ours", CPU, 1, teacher_file(SMALL.teacher, tmp_path))
    assert found["peak"] > found["added"] > 20  # MiB: a student, its optimizer and its average are more


def rows() -> list[dict[str, Any]]:
    seconds = {"plain": [1.0, 1.2, 1.1], "builtin": [4.0, 4.0, 4.0], "ours": [2.6, 2.8, 3.0], "teacher": [1.4] * 3}
    seconds["teacher as run"] = [0.6, 0.6, 0.9]
    memory = {"ours": {"peak": 900.0, "added": 300.0}, "builtin": {"peak": 1000.0, "added": 600.0}}
    without = {name: values for name, values in seconds.items() if name != "builtin"}
    return [summarize("n <- m", seconds, memory), summarize("n <- rtdetr", without, {})]


def test_figures_by_hand() -> None:
    first, second = rows()
    assert first["ratios"]["ours / builtin"] == pytest.approx(0.70)
    assert first["ratios"]["ours / floor"] == pytest.approx(2.6 / 2.4)
    assert first["ratios"]["ours / floor as run"] == pytest.approx(2.8 / 1.8)
    assert first["ratios"]["memory"] == pytest.approx(0.9)
    assert "ours / builtin" not in second["ratios"]
    lines = table([first, second]).splitlines()
    timed = "| 1.100 ± 0.100 | 1.400 ± 0.000 | 0.600 ± 0.150 | 4.000 ± 0.000 | 2.800 ± 0.200 |"
    assert lines[2] == f"| n <- m {timed} 0.700 | 1.083 | 1.556 | 0.900 |"
    assert lines[3].count("| - ") == 3
    assert parts_table({"teacher": 0.7}, 2.8).splitlines()[2] == "| teacher | 700.0 | 25.0% |"


def test_results_of_earlier_versions_are_shown_with_blanks() -> None:
    first = rows()[0]
    del first["seconds"]["teacher as run"], first["ratios"]["ours / floor as run"]
    cells = table([first]).splitlines()[2].split(" | ")
    assert cells[3] == cells[8] == "-"
    assert parts_of({**first, "parts": "| a table |"})[-1] == "| a table |"
    assert parts_of(first) == []
    several = {**first, "memory": {"ours": {"peak": 2.0, "peaks": [1.0, 2.0, 4.2]}, "plain": {"peak": 1.0}}}
    assert peaks_of(several)[-1] == "Peaks in MiB of 3 processes each: ours 1 to 4."
    assert peaks_of(first) == peaks_of({"memory": {"ours": {"peak": 2.0, "peaks": [2.0]}}}) == []


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    assert plot(rows(), tmp_path / "step.png").stat().st_size > 10_000


def test_features_of_the_timed_maps_are_the_student_s(tmp_path: Path) -> None:
    step = Step(SMALL, "ours", CPU, teacher_file(SMALL.teacher, tmp_path))
    seen: list[Features] = []
    step.model.ima.criterion.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    step()
    assert seen[0].strides == (8, 16, 32)
    assert all(level.requires_grad for level in seen[0].maps)


def test_the_command_measures_and_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ima_yolo.speed.run.PEAKS", 1)
    words = ["benchmark", "train", "student=yolo26n", "teacher=yolo26s.yaml", "imgsz=64", "batch=2", "rounds=1"]
    assert main([*words, "ima_cls=0", f"output={tmp_path}"]) == 0
    assert "ours / floor" in capsys.readouterr().out
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png"}
    assert main([*words, "ima_cls=0", f"output={tmp_path}"]) == 0
    assert "measured already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student=yolo26n"], "teacher= is missing"),
        (["teacher=yolo26s.yaml"], "student= is missing"),
        (["teacher=yolo26s.yaml", "student=gone.pt"], "student=gone.pt: no such file"),
        (["teacher=yolo26s.yaml", "student=yolo26n-seg"], "student=yolo26n-seg: a model for segment; the steps of"),
        (
            ["teacher=yolo26s.yaml", "student=gone"],
            "student=gone.yaml: no such architecture (.yaml) or checkpoint (.pt), or not one to be read",
        ),
        (["teacher=yolo26s.yaml", "student=yolo26n", "imgsz=100"], "imgsz=100: expected multiples of 32"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "imgsz=1000000"], "imgsz=1000000: expected multiples of 32 to"),
        (
            ["teacher=yolo26s.yaml", "student=yolo26n", "threads=9999"],
            "threads=9999: expected a whole number from 1 to 1024",
        ),
        (["teacher=yolo26s.yaml", "student=yolo26n", "rounds=0"], "rounds=0: expected a whole number"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "round=1"], "did you mean 'rounds'?"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "ima_loss=l3"], "ima_loss=l3"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "ima_unlabelled=more"], "ima_unlabelled= is not measured"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "ima_every=2"], "ima_every=2 is not measured"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "ima_unlabelled=None", "ima_every=2"], "ima_every=2 is not"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "resume"], "'resume': expected key=value"),
        (["verbose", "teacher=yolo26s.yaml", "student=yolo26n"], "'verbose': expected key=value"),
        (["teacher=yolo26n-cls.yaml", "student=yolo26n"], "teacher=yolo26n-cls.yaml: a classification model has no"),
        (["teacher=a.pt,b.pt", "student=yolo26n"], "teacher=a.pt,b.pt: benchmark train measures one teacher"),
        (["teacher=torchvision:resnet50", "student=yolo26n"], "teacher=torchvision:resnet50: benchmark train measures"),
        (["teacher=timm:resnet18", "student=yolo26n"], "teacher=timm:resnet18: benchmark train measures one teacher"),
        (["teacher=my.net:teacher", "student=yolo26n"], "teacher=my.net:teacher: benchmark train measures one teacher"),
        (["teacher=yolo26s.yaml", "student=yolo26n", "cfg=paper"], "cfg= is not read by benchmark train"),
    ],
)
def test_the_command_refuses(words: list[str], message: str, capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", "train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["student", "teacher"])
def test_the_command_refuses_what_a_training_refuses(key: str, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("activation: open('touched', 'w')\nbackbone: []\nhead: []\n")
    models = {"student": "yolo26n", "teacher": "yolo26s.yaml", key: str(bad)}
    words = [f"{name}={value}" for name, value in models.items()]
    assert main(["benchmark", "train", *words, "imgsz=64", f"output={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.startswith(f"ima-yolo: {key}={bad}: refused, since its activation is")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.yaml"]


def test_help_tells_the_number_of_threads_that_is_used_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ultralytics sets it where a device is chosen."""
    used: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr("ima_yolo.speed.run.run", lambda *_: (tmp_path / "x").touch() or tmp_path / "x")
    words = ["student=yolo26n", "teacher=yolo26s.yaml", "device=cpu", f"output={tmp_path}"]
    assert main(["benchmark", "train", *words]) == 0
    assert used[-1] == min(8, max(1, (os.cpu_count() or 1) - 1))
    assert main(["help", "benchmark"]) == 0
    assert "one less than cores, from 1 to 8" in capsys.readouterr().out
