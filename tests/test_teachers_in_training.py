"""Trainings with teachers of other sizes and hosts, and with several: what reaches the run, and what it says."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import get_model
from ultralytics import YOLO

from ima_yolo import IMATrainer

COMMON = {"epochs": 1, "imgsz": 64, "batch": 4, "plots": False, "workers": 0, "optimizer": "AdamW", "val": False}
COMMON |= {"ima_gate": False}  # or an untrained teacher, which knows nothing more, rests
FOREIGN = "fasterrcnn_mobilenet_v3_large_fpn"  # the smallest of torchvision's detectors; strides 32 and 64


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    student, teacher = tiny_checkpoint(seed=0), str(tiny_checkpoint("yolo26s-few.yaml", seed=1))
    return {**COMMON, "teacher": teacher, "model": str(student), "data": str(tiny_data), "project": str(tmp_path)}


@pytest.fixture
def sure(options: dict[str, Any], tmp_path: Path) -> str:
    teacher = YOLO(options["teacher"])
    for level in teacher.model.model[-1].cv3:
        level[-1].bias.data.fill_(1.0)  # an untrained head is sure of nothing, and teaches nothing
    teacher.save(tmp_path / "sure.pt")
    return str(tmp_path / "sure.pt")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(f"ima_yolo.trainer.LOGGER.{level}", lambda line, *_: lines.append(str(line)))
    return lines


class Stop(Exception):
    """Ends a run between two epochs."""


def stop(_: Any) -> None:
    raise Stop


def train(options: dict[str, Any], **changed: Any) -> IMATrainer:
    trainer = IMATrainer(overrides={**options, **changed})
    trainer.train()
    return trainer


def terms(trainer: IMATrainer) -> dict[str, float]:
    with trainer.csv.open() as file:
        last = list(csv.DictReader(file))[-1]
    return {name: float(last[f"train/{name}"]) for name in ("ima_loss", "kdcls_loss", "kdbox_loss")}


def test_a_teacher_sees_images_of_its_own_size_and_the_run_says_what_is_lost(
    options: dict[str, Any], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = IMATrainer(overrides={**options, "ima_teacher_imgsz": 128})
    (teacher,) = trainer.teachers
    sizes: list[tuple[int, ...]] = []
    look = type(teacher).__call__
    monkeypatch.setattr(
        type(teacher), "__call__", lambda own, images, *a: (sizes.append(images.shape[2:]), look(own, images, *a))[1]
    )
    trainer.train()
    assert set(sizes) == {(128, 128)}
    assert trainer.distiller.criterion.strides == (8, 16)
    assert f"{teacher.name}: no level at the student's strides [32], which learn from the task alone" in said
    assert f"{teacher.name}: its levels at strides [4] have no counterpart and are left out" in said
    assert any(line.startswith("Distilling features alone") and "of an image of 128 px" in line for line in said)


def test_a_teacher_that_can_be_compared_throughout_is_no_loss(options: dict[str, Any], said: list[str]) -> None:
    train(options)
    ours = [line for line in said if line.startswith((options["teacher"], "Distilling", "Terms on the heads"))]
    assert ours == [f"Distilling from {options['teacher']} at strides [8, 16, 32]"]


def test_weights_from_a_file_teach_beside_a_checkpoint_and_a_resumed_run_has_them_again(
    options: dict[str, Any], said: list[str], sure: str, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    own = get_model(FOREIGN, weights=None, weights_backbone=None, num_classes=4)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    both = {"teacher": f"{sure},torchvision:{FOREIGN}", "ima_teacher_weights": str(tmp_path / "own.pth")}
    trainer = IMATrainer(overrides={**options, **both, "epochs": 2, "ima_gate": False})
    trainer.add_callback("on_model_save", stop)
    with pytest.raises(Stop):
        trainer.train()
    foreign = trainer.teachers[1]._model.state_dict()
    assert all(torch.equal(value, foreign[name]) for name, value in own.backbone.state_dict().items())
    without_head = f"Terms on the heads leave out: torchvision:{FOREIGN} has no head"
    assert any(line.startswith(without_head) for line in said)
    said.clear()
    again = train({"resume": str(trainer.last)})
    assert [teacher.digest() for teacher in again.teachers] == [teacher.digest() for teacher in trainer.teachers]
    assert not any("not those that this run was started with" in line for line in said)
    assert min(terms(again).values()) > 0
    assert [member.strides for member in again.distiller.criterion.members] == [(8, 16, 32), (32,)]


def test_a_teacher_and_the_same_again_say_what_it_says_alone(options: dict[str, Any], sure: str) -> None:
    heads = {"ima_weight": 0, "ima_cls": 1, "ima_box": 1, "ima_gate": False}
    alone = terms(train(options, teacher=sure, name="alone", **heads))
    twice = terms(train(options, teacher=f"{sure},{sure}", name="twice", **heads))
    assert min(alone["kdcls_loss"], alone["kdbox_loss"]) > 0
    assert twice == pytest.approx(alone, rel=1e-3)
