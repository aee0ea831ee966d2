"""`compile=True`, which Ultralytics' own distillation cannot do: the student's forward pass is one compiled graph."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import torch_safe_load

from ima_yolo import IMATrainer
from ima_yolo.attach import cannot_compile
from ima_yolo.students import load_student

COMMON = {"epochs": 2, "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "optimizer": "AdamW", "lr0": 0.002}
COMMON |= {"ima_gate": False}  # or an untrained teacher, which knows nothing more, rests


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Compile the graph, but not to machine code: that takes a minute, and a compiler."""
    modes: list[str] = []

    def compile_(model: Any, mode: Any, **_: Any) -> Any:
        if mode:
            modes.append(mode)
        return torch.compile(model, backend="aot_eager") if mode else model

    monkeypatch.setattr("ultralytics.engine.trainer.attempt_compile", compile_)
    return modes


def terms_of(trainer: IMATrainer) -> list[list[float]]:
    with trainer.csv.open() as file:
        rows = list(csv.DictReader(file))
    return [[float(row[key]) for key in row if key.startswith("train/")] for row in rows]


def test_a_compiled_student_learns_what_it_learns_otherwise(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, compiled: list[str]
) -> None:
    options = {**COMMON, "data": str(tiny_data), "model": str(tiny_checkpoint()), "project": str(tmp_path)}
    options |= {"teacher": tiny_checkpoint("yolo26s-few.yaml", seed=1), "ima_weight": 1.0, "ima_gate": False}
    plain = IMATrainer(overrides={**options, "name": "plain"})
    plain.train()
    assert compiled == []
    trainer = IMATrainer(overrides={**options, "name": "compiled", "compile": True})
    trainer.train()
    assert compiled == [True]
    for found, expected in zip(terms_of(trainer), terms_of(plain), strict=True):
        assert found == pytest.approx(expected, rel=1e-2, abs=1e-3)
        assert min(found[-3], found[-1]) > 0, "the features' term, and that of the boxes"
    model = torch_safe_load(trainer.last, safe_only=True)[0]["model"]
    assert type(model).__module__ == "ultralytics.nn.tasks"
    assert not any(name.startswith(("_orig_mod", "ima.")) for name in model.state_dict())


def test_the_weight_of_a_compiled_student_is_measured(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path, compiled: list[str]
) -> None:
    """Not where the maps act on each other, which a compiled graph hides: it is near the other, and not equal."""
    options = {**COMMON, "epochs": 1, "val": False, "data": str(tiny_data), "model": str(tiny_checkpoint())}
    options |= {"teacher": tiny_checkpoint("yolo26s-few.yaml", seed=1), "project": str(tmp_path)}
    weights = []
    for compile_ in (False, True):
        trainer = IMATrainer(overrides={**options, "compile": compile_, "name": f"compile-{compile_}"})
        trainer.train()
        weights.append(trainer.distiller.weight.value)
    assert compiled == [True]
    assert weights[1] == pytest.approx(weights[0], rel=0.5)
    assert weights[0] < 0.6, "1 stands for no measurement"


@pytest.mark.parametrize("kind", ["segment", "pose", "obb"])
def test_every_task_whose_predictions_carry_maps(
    kind: str, task_data: Callable[[str], Path], lively_teacher: Path, tmp_path: Path, compiled: list[str]
) -> None:
    student = {"segment": "yolo26n-seg.yaml", "pose": "yolo26n-pose.yaml", "obb": "yolo26n-obb.yaml"}[kind]
    options = {**COMMON, "epochs": 1, "val": False, "data": str(task_data(kind)), "model": student, "compile": True}
    trainer = IMATrainer(overrides={**options, "teacher": lively_teacher, "project": str(tmp_path)})
    trainer.train()
    assert compiled == [True]
    (row,) = terms_of(trainer)
    assert row[-1] > 0


def test_where_it_cannot_be_it_is_switched_off_with_a_word(
    task_data: Callable[[str], Path], lively_teacher: Path, tmp_path: Path, compiled: list[str], monkeypatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("ima_yolo.trainer.LOGGER.warning", said.append)
    options = {**COMMON, "epochs": 1, "val": False, "data": str(task_data("semantic")), "model": "yolo26n-sem.yaml"}
    options |= {"teacher": lively_teacher, "project": str(tmp_path), "compile": True}
    IMATrainer(overrides=options).train()
    assert compiled == []
    assert any(line.startswith("compile= is switched off: the predictions of a SemanticSegment head") for line in said)


def test_several_devices_are_not_compiled() -> None:
    student, _ = load_student("yolo26n.yaml")
    assert cannot_compile(student, 1) is None
    assert "several devices" in str(cannot_compile(student, 2))
