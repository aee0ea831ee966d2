"""The pure loss functions: numbers derived by hand, gradients, invariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck

from ima_yolo.losses import cwd_loss, ima_loss, l2_loss, mgd_loss, pkd_loss

LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "l2": l2_loss,
    "mgd": mgd_loss,
    "cwd": cwd_loss,
    "pkd": pkd_loss,
    "ima": ima_loss,
    "ima-shifted": partial(ima_loss, deflation="shifted"),
    "ima-floor": partial(ima_loss, deflation="floor"),
    "ima-undeflated": partial(ima_loss, deflation="none"),
    "ima-student": partial(ima_loss, standardized="student", deflation="none"),
    "ima-cosine": partial(ima_loss, deflation="cosine"),
    "ima-plain": partial(ima_loss, standardized="none", deflation="none"),
}


def quad(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 2, 2)


def pair(rho: float) -> tuple[torch.Tensor, torch.Tensor]:
    first, other = quad(1, 1, -1, -1), quad(1, -1, 1, -1)
    return rho * first + math.sqrt(1 - rho**2) * other, first


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "ima-student"])
def test_identical_features_give_zero(name: str) -> None:
    features = torch.randn(3, 4, 6, 5)
    assert LOSSES[name](features, features.clone()).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_different_features_give_more_than_zero(name: str) -> None:
    assert LOSSES[name](torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)).item() > 0.01


# Forms that hold gamma constant are no derivative of their value by design; test_align.py pins their direction.
SMOOTH = ["l2", "mgd", "cwd", "pkd", "ima-undeflated", "ima-cosine", "ima-plain", "ima-student"]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_in_double_precision(name: str) -> None:
    torch.manual_seed(0)
    student = torch.randn(2, 3, 3, 4, dtype=torch.float64, requires_grad=True)
    teacher = student.detach() + 0.5 * torch.randn(2, 3, 3, 4, dtype=torch.float64)  # correlated: no gamma is clamped
    assert gradcheck(lambda features: LOSSES[name](features, teacher), (student,))


def test_l2_by_hand() -> None:
    assert l2_loss(quad(0, 0, 0, 0), quad(1, 2, 3, 4)).item() == pytest.approx(30 / 4)


def test_mgd_by_hand() -> None:
    student, teacher = torch.zeros(2, 1, 2, 2), torch.cat([quad(1, 2, 3, 4), quad(0, 0, 0, 2)])
    assert mgd_loss(student, teacher).item() == pytest.approx((30 + 4) / 2), "summed over a map, mean over images"


def test_cwd_by_hand() -> None:
    teacher = quad(math.log(2), 0, 0, 0)  # softmax: 2/5, 1/5, 1/5, 1/5
    student = quad(0, 0, 0, 0)  # softmax: 1/4 each
    expected = 0.4 * math.log(0.4 / 0.25) + 0.6 * math.log(0.2 / 0.25)
    assert cwd_loss(student, teacher).item() == pytest.approx(expected, abs=1e-6)
    assert cwd_loss(2 * student, 2 * teacher, temperature=2.0).item() == pytest.approx(4 * expected, abs=1e-6)


def test_cwd_averages_over_images_and_channels() -> None:
    student, teacher = torch.randn(1, 1, 4, 4), torch.randn(1, 1, 4, 4)
    once = cwd_loss(student, teacher)
    assert cwd_loss(student.repeat(3, 5, 1, 1), teacher.repeat(3, 5, 1, 1)).item() == pytest.approx(
        once.item(), rel=1e-5
    )


def test_cwd_ignores_a_shift_of_a_channel() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    shifted = student + torch.randn(2, 3, 1, 1)
    assert cwd_loss(shifted, teacher).item() == pytest.approx(cwd_loss(student, teacher).item(), abs=1e-5)


@pytest.mark.parametrize("rho", [1.0, 0.5, 0.0, -0.5, -1.0])
def test_pkd_is_one_minus_the_correlation(rho: float) -> None:
    assert pkd_loss(*pair(rho)).item() == pytest.approx(1 - rho, abs=1e-5)


def test_pkd_keeps_what_differs_between_images_and_ima_does_not() -> None:
    features = torch.randn(2, 3, 8, 8)
    brighter = features.clone()
    brighter[1] += 5.0
    assert pkd_loss(brighter, features).item() > 0.1
    assert ima_loss(brighter, features).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("none", lambda rho: 2 * (1 - rho)),
        ("weight", lambda rho: 2 * (1 - rho)),  # one instance: its weight is its own mean
        ("cosine", lambda rho: 1 - rho**2 if rho > 0 else 1.0),
        ("shifted", lambda rho: ((1 + rho) / 2) ** 2 - (1 + rho) * rho + 1),
        ("floor", lambda rho: max(rho, 0.1) ** 2 - 2 * max(rho, 0.1) * rho + 1),
    ],
)
@pytest.mark.parametrize("rho", [1.0, 0.6, 0.0, -0.6])
def test_ima_as_a_function_of_the_correlation(form: str, expected: Callable[[float], float], rho: float) -> None:
    assert ima_loss(*pair(rho), deflation=form).item() == pytest.approx(expected(rho), abs=1e-5)


def test_ima_without_its_parts_is_plain_distillation() -> None:
    student, teacher = torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5)
    plain = ima_loss(student, teacher, standardized="none", deflation="none")
    assert plain.item() == pytest.approx(l2_loss(student, teacher).item(), rel=1e-6)


@pytest.mark.parametrize("deflation", ["none", "weight", "shifted", "floor", "cosine"])
def test_ima_ignores_scale_and_shift_on_both_sides(deflation: str) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4, 6, 6), torch.randn(3, 4, 6, 6)
    moved = [f * (torch.rand(3, 4, 1, 1) + 0.5) + torch.randn(3, 4, 1, 1) for f in (student, teacher)]
    before, after = ima_loss(student, teacher, deflation=deflation), ima_loss(*moved, deflation=deflation)
    assert after.item() == pytest.approx(before.item(), abs=1e-4)


def test_the_literal_reading_chases_the_scale_of_the_teacher() -> None:
    features = quad(1, 1, -1, -1)
    assert ima_loss(features, 3 * features, standardized="student", deflation="none").item() == pytest.approx(
        4, abs=1e-4
    )
    assert ima_loss(features, 3 * features, standardized="both", deflation="none").item() == pytest.approx(0, abs=1e-4)


def test_weights_choose_positions() -> None:
    student, teacher = quad(0, 0, 0, 0), quad(1, 2, 3, 4)
    weights = quad(1, 0, 0, 1)
    loss = ima_loss(student, teacher, standardized="none", deflation="none", weights=weights)
    assert loss.item() == pytest.approx((1 + 16) / 2)


def test_an_instance_without_weight_adds_nothing() -> None:
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    weights = torch.zeros(2, 1, 4, 4)
    weights[0] = 1
    both = ima_loss(student, teacher, deflation="none", weights=weights)
    alone = ima_loss(student[:1], teacher[:1], deflation="none")
    assert both.item() == pytest.approx(alone.item() / 2, rel=1e-5)


def test_no_instance_gives_zero_that_can_be_differentiated() -> None:
    student = torch.zeros(0, 3, 7, 7, requires_grad=True)
    loss = ima_loss(student, torch.zeros(0, 3, 7, 7))
    loss.backward()
    assert loss.item() == 0.0
