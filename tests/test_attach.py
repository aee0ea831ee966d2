"""The attached student: its loss has our terms, and every copy, pickle and state of it is plain."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from ima_yolo.attach import attach, detach
from ima_yolo.features import Features, Predictions


class Probe(nn.Module):
    """A distiller that adds a fixed term and remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.adapter = nn.Conv2d(1, 1, 1)
        self.seen: list[Features] = []
        self.measures = False

    def observe(self, batch: dict[str, Any]) -> None:
        """Show nothing."""

    def forward(
        self,
        batch: dict[str, Any],
        student: Features,
        task: torch.Tensor,
        predicted: Callable[[], Predictions],
        *_: Any,
    ) -> tuple[torch.Tensor, dict]:
        self.seen.append(student)
        self.said = predicted()
        term = student.maps[0].mean() * 0 + self.adapter.weight.sum() * 0 + 3.0
        return term, {"ima_loss": term.detach()}


def build(config: str = "yolo26n.yaml") -> DetectionModel:
    torch.manual_seed(0)
    model = DetectionModel(config, nc=3, verbose=False)
    model.args = get_cfg()
    return model


def batch_of(size: int = 64) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "img": torch.rand(2, 3, size, size, generator=generator),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[0.0], [2.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.4, 0.6, 0.3, 0.5]]),
    }


@pytest.mark.parametrize("config", ["yolov8n.yaml", "yolo11n.yaml", "yolo26n.yaml"])
def test_an_attached_student_adds_the_term_once_an_image(config: str) -> None:
    student = build(config)
    plain, plain_items = student.loss(batch_of())
    attach(student, Probe())
    loss, items = student.loss(batch_of())
    assert loss[:-1].sum().item() == pytest.approx(plain.sum().item(), rel=1e-5)
    assert loss[-1].item() == pytest.approx(3.0 * 2)
    assert list(items) == [*plain_items, "ima_loss"]
    assert student.ima.seen[0].strides == (8, 16, 32)
    assert student.ima.said.scores.shape == (2, 64 + 16 + 4, 3)
    assert student.ima.said.scores.requires_grad


def test_the_student_stays_plain_wherever_it_is_copied_or_saved() -> None:
    student = build()
    keys = set(student.state_dict())
    attach(student, Probe())
    copied = deepcopy(student)
    restored = pickle.loads(pickle.dumps(student))
    for other in (copied, restored):
        assert type(other) is DetectionModel
        assert set(other.state_dict()) == keys
        assert not hasattr(other, "ima")
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), copied.parameters(), strict=True))
    assert set(student.state_dict()) == keys
    assert any(name.startswith("ima.") for name, _ in student.named_parameters()), "the optimizer must see the adapters"


def test_the_pickle_names_nothing_of_ours() -> None:
    student = build()
    attach(student, Probe())
    buffer = io.BytesIO()
    torch.save(student, buffer)
    assert b"ima_yolo" not in buffer.getvalue()


def test_a_plain_state_loads_into_an_attached_student_strictly() -> None:
    student, other = build(), build()
    nn.init.constant_(other.model[0].conv.weight, 0.5)
    attach(student, Probe())
    with torch.no_grad():
        student.ima.adapter.weight.fill_(7.0)
    student.load_state_dict(other.state_dict())
    assert (student.model[0].conv.weight == 0.5).all()
    assert student.ima.adapter.weight.item() == 7.0


def test_detach_gives_the_same_object_back_as_it_was() -> None:
    student = build()
    names = [name for name, _ in student.named_parameters()]
    attach(student, Probe())
    detach(student)
    assert type(student) is DetectionModel
    assert [name for name, _ in student.named_parameters()] == names
    detach(student)  # a second time does nothing
    assert type(student) is DetectionModel


def test_no_hook_stays_after_a_step() -> None:
    student = build()
    attach(student, Probe())
    student.loss(batch_of())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in student.modules())


def test_predictions_of_a_compiled_student_carry_the_maps() -> None:
    student = build()
    attach(student, Probe())
    images = batch_of()
    student.loss(images, student.predict(images["img"]))
    assert [level.shape[-1] for level in student.ima.seen[0].maps] == [8, 4, 2]


def test_in_evaluation_the_teacher_is_left_alone() -> None:
    student = build()
    attach(student, Probe())
    student.eval()
    _, items = student.loss(batch_of())
    assert "ima_loss" not in items
    assert student.ima.seen == []
