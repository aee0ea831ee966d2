"""A teacher in bfloat16: its maps but for rounding, its head in single precision, or the teacher as it was."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from ima_yolo import host
from ima_yolo.features import Features, tap
from ima_yolo.losses import IMALoss
from ima_yolo.losses.head import box_loss, score_loss
from ima_yolo.masks import Regions
from ima_yolo.students import load_student
from ima_yolo.teachers import half, load
from ima_yolo.teachers.load import choose_runtime
from ima_yolo.teachers.yolo import YOLOTeacher

CPU = torch.device("cpu")


@pytest.fixture
def pair(lively_teacher: Path) -> tuple[YOLOTeacher, YOLOTeacher]:
    """One teacher as it is, and the same in bfloat16."""
    plain, fast = YOLOTeacher(lively_teacher), YOLOTeacher(lively_teacher)
    assert fast.by_half()
    return plain, fast


def images(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(4))


def error(one: torch.Tensor, other: torch.Tensor) -> float:
    """Root mean square of the difference over the standard deviation."""
    return float((one - other.float()).square().mean().sqrt() / one.std())


def test_maps_and_predictions_are_the_teachers_but_for_rounding(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    for shape, asked in [((2, 3, 64, 96), ()), ((1, 3, 50, 77), (True, False, True)), ((3, 3, 96, 64), (False, True))]:
        own, other = (teacher(images(*shape), *asked) for teacher in pair)
        for first, second in zip(own.features.maps, other.features.maps, strict=True):
            assert first.shape == second.shape
            assert second.dtype == torch.bfloat16, "it waits in half the memory"
            assert 0 < error(first, second) < half.TOLERANCE
        if own.predictions is not None and other.predictions is not None:
            assert other.predictions.boxes.dtype == other.predictions.scores.dtype == torch.float32
            assert error(own.predictions.scores, other.predictions.scores) < half.TOLERANCE
            assert (own.predictions.boxes - other.predictions.boxes).abs().mean() < 0.1, "pixels"


def test_the_head_is_not_rounded(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    kinds = [{value.dtype for value in layer.parameters()} for layer in pair[1]._model.model.children()]
    assert kinds[-1] == {torch.float32}
    assert torch.bfloat16 in set().union(*kinds[:-1])
    assert torch.float32 not in set().union(*kinds[:-1])


def test_loss_and_gradient_keep_the_stated_tolerance(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    """Two percent of the loss, five of the gradient."""
    shown = images(4, 3, 96, 96)
    found: list[tuple[float, torch.Tensor]] = []
    for teacher in pair:
        seen: Features = teacher(shown).features
        stride, channels = seen.strides[0], seen.maps[0].shape[1]
        student = images(4, 8, *seen.maps[0].shape[2:]).requires_grad_(True)
        torch.manual_seed(0)
        loss = IMALoss(8, channels, rng=torch.Generator().manual_seed(0))
        value = loss(student, seen.maps[0], stride, Regions(torch.zeros(0, 5), {}))
        found.append((value.item(), torch.autograd.grad(value, student)[0]))
    (plain, gradient), (fast, other) = found
    assert fast == pytest.approx(plain, rel=2e-2)
    assert (other - gradient).norm() < 5e-2 * gradient.norm()


@pytest.mark.parametrize("size", [160, 224])
def test_a_trained_teacher_keeps_the_stated_tolerances_at_every_level_and_on_the_heads(shared: Path, size: int) -> None:
    """Of the features 2% of the loss and 10% of its gradient; of class scores 5% of the gradient, of boxes 10%."""
    files = sorted((shared / "data" / "bccd" / "images" / "val").glob("*.jpg"))[:8]
    shown = torch.stack([torch.from_numpy(cv2.resize(cv2.imread(str(file)), (size, size))) for file in files])
    shown = shown.flip(3).permute(0, 3, 1, 2).float() / 255  # BGR (B, H, W, 3) -> RGB (B, 3, H, W)
    path = shared / "weights" / "bccd_yolo26s.pt"
    teachers = YOLOTeacher(path), YOLOTeacher(path)
    assert teachers[1].by_half()
    plain, fast = (teacher(shown, predictions=True) for teacher in teachers)
    student, _ = load_student("yolo26n.yaml")
    head, levels = host.neck(student)
    with torch.no_grad(), tap(head, levels) as caught:
        student(shown)
    for own, one, other in zip(caught.maps or [], plain.features.maps, fast.features.maps, strict=True):
        (value, gradient), (near, rounded) = (_loss_at(own, seen) for seen in (one, other))
        assert near == pytest.approx(value, rel=2e-2)
        assert (rounded - gradient).norm() < 1e-1 * gradient.norm()
    own = host.predictions(head, caught.output)
    scores = own.scores[..., :3].clone().requires_grad_(True)  # of as many classes as the teacher has
    boxes = own.boxes.clone().requires_grad_(True)
    gradients = []
    for seen in (plain.predictions, fast.predictions):
        assert seen is not None
        confidence = seen.scores.sigmoid().amax(dim=2)
        by_scores = torch.autograd.grad(score_loss(scores, seen.scores), scores)[0]
        gradients.append((by_scores, torch.autograd.grad(box_loss(boxes, seen.boxes, confidence), boxes)[0]))
    for exact, rounded, tolerance in zip(*gradients, (5e-2, 1e-1), strict=True):
        assert (rounded - exact).norm() < tolerance * exact.norm()


def _loss_at(student: torch.Tensor, seen: torch.Tensor) -> tuple[float, torch.Tensor]:
    torch.manual_seed(0)
    own = student.clone().requires_grad_(True)
    loss = IMALoss(own.shape[1], seen.shape[1], rng=torch.Generator().manual_seed(0))
    value = loss(own, seen, 8, Regions(torch.zeros(0, 5), {}))
    return value.item(), torch.autograd.grad(value, own)[0]


def test_it_repeats_itself_bit_by_bit(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    first, second = (pair[1](images(2, 3, 64, 64)).features.maps for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_it_answers_for_the_weights_that_were_rounded(pair: tuple[YOLOTeacher, YOLOTeacher]) -> None:
    plain, fast = pair
    assert fast.digest() == plain.digest()
    assert (plain.runtime, fast.runtime) == ("torch", "bf16")
    assert fast.by_half(), "once more changes nothing"
    with torch.no_grad():
        next(fast._model.parameters()).mul_(2)
    assert fast.digest() != plain.digest(), "a changed weight shows"


@pytest.mark.parametrize("fault", ["cannot run", "other maps"])
def test_what_cannot_be_rounded_stays_as_it_was(
    lively_teacher: Path, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = YOLOTeacher(lively_teacher)
    before = teacher(images(1, 3, 64, 64)).features.maps
    if fault == "other maps":
        monkeypatch.setattr(half, "TOLERANCE", 1e-6)
    else:
        monkeypatch.setattr(half, "DTYPE", torch.int8)
    assert not teacher.by_half()
    assert teacher.runtime == "torch"
    after = teacher(images(1, 3, 64, 64)).features.maps
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert "cannot run in bfloat16" in caplog.text
    assert ("of their standard deviation" in caplog.text) is (fault == "other maps")


@pytest.mark.parametrize(
    ("choice", "native", "looks", "expected"),
    [
        ("auto", True, 2000, "bf16"),
        ("auto", True, 1999, "torch"),
        ("auto", False, 2000, "onnx"),
        ("bf16", True, 1, "bf16"),
        ("bf16", False, 1, "bf16"),
        ("onnx", True, 1, "onnx"),
        ("torch", True, 1e9, "torch"),
    ],
)
def test_the_fastest_way_of_a_processor_is_chosen(
    choice: str,
    native: bool,
    looks: float,
    expected: str,
    lively_teacher: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(load, "is_native", lambda: native)
    teacher = YOLOTeacher(lively_teacher)
    choose_runtime([teacher], choice, CPU, looks)
    ways = {"bf16": teacher._dtype is not None, "onnx": teacher._graphs is not None}
    assert [way for way, taken in ways.items() if taken] == [way for way in (expected,) if way != "torch"]
    assert ("does not multiply bfloat16 itself" in caplog.text) is (choice == "bf16" and not native)


def test_auto_takes_onnx_where_bfloat16_fails(lively_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "is_native", lambda: True)
    monkeypatch.setattr(half, "TOLERANCE", 1e-6)
    teachers: list[Any] = [YOLOTeacher(lively_teacher), YOLOTeacher(lively_teacher)]
    for teacher, choice in zip(teachers, ("auto", "bf16"), strict=True):
        choose_runtime([teacher], choice, CPU, 1e9)
    assert [teacher._graphs is not None for teacher in teachers] == [True, False], "what was asked for is not replaced"


def test_the_weights_that_were_rounded_are_let_go_at_once(lively_teacher: Path) -> None:
    """They would lie beside the student's first steps else, whose peak is what a machine must have."""
    teacher = YOLOTeacher(lively_teacher)
    weights = weakref.ref(teacher._model.model[0].conv.weight.untyped_storage())
    gc.disable()
    try:
        choose_runtime([teacher], "bf16", CPU, 1e9)
    finally:
        gc.enable()
    assert weights() is None
