from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ima_yolo.align import (
    LightGenerator,
    adapter,
    box_instances,
    boxes_of_level,
    deflate,
    deflation,
    generator,
    importance,
    standardize,
)

FORMS = ["none", "weight", "shifted", "floor", "cosine"]


def pair(rho: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two standardised instances of one channel whose correlation is rho."""
    first = torch.tensor([1.0, 1.0, -1.0, -1.0]).view(1, 1, 2, 2)
    other = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 2, 2)
    return rho * first + math.sqrt(1 - rho**2) * other, first


def test_adapter_changes_channels_and_is_an_identity_only_where_asked() -> None:
    assert adapter(3, 5)(torch.zeros(2, 3, 4, 4)).shape == (2, 5, 4, 4)
    assert isinstance(adapter(3, 3), nn.Conv2d)
    assert isinstance(adapter(3, 3, always=False), nn.Identity)
    assert isinstance(adapter(3, 5, always=False), nn.Conv2d)


def test_generator_sees_a_neighbourhood_of_five_by_five() -> None:
    block = generator(1)
    for parameter in block.parameters():
        nn.init.ones_(parameter)
    image = torch.zeros(1, 1, 9, 9, requires_grad=True)
    block(image)[0, 0, 4, 4].backward()
    rows = image.grad[0, 0].any(dim=1).nonzero().flatten()
    assert rows.tolist() == [2, 3, 4, 5, 6]


def test_the_light_generator_restores_from_neighbours_and_keeps_what_is_visible() -> None:
    block = LightGenerator(2)
    masked = torch.zeros(1, 2, 9, 9)
    masked[0, 0, 4, 4] = 1e-4  # as small as the features of an untrained student
    restored = block(masked)
    assert restored[0, 1].abs().max() == 0, "depthwise: no channel sees another"
    assert restored[0, 0, 4, 4].item() == pytest.approx(1e-4, rel=0.5)
    reached = restored[0, 0].nonzero()
    assert reached.min() >= 2
    assert reached.max() <= 6, "a neighbourhood of five by five"


def test_standardize_by_hand() -> None:
    features = torch.tensor([1.0, 2.0, 3.0, 6.0]).view(1, 1, 2, 2)  # mean 3, variance (4 + 1 + 0 + 9) / 4 = 3.5
    expected = torch.tensor([-2.0, -1.0, 0.0, 3.0]).view(1, 1, 2, 2) / math.sqrt(3.5)
    assert torch.allclose(standardize(features), expected, atol=1e-6)


def test_standardize_ignores_scale_and_shift_of_each_channel_of_each_instance() -> None:
    features = torch.randn(3, 4, 6, 5)
    scale, shift = torch.rand(3, 4, 1, 1) * 5 + 0.5, torch.randn(3, 4, 1, 1) * 10
    assert torch.allclose(standardize(features * scale + shift), standardize(features), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_a_constant_channel_becomes_zero_with_a_finite_gradient(value: float) -> None:
    features = torch.full((1, 1, 4, 4), value, requires_grad=True)
    output = standardize(features)
    output.square().sum().backward()
    assert torch.equal(output, torch.zeros_like(output))
    assert features.grad.isfinite().all()


def test_standardize_works_in_single_precision_on_half_input() -> None:
    features = torch.full((1, 1, 32, 32), 1000.0).half()  # the sum of squares overflows float16
    features[..., :16] += 8
    assert standardize(features).dtype == torch.float32
    assert standardize(features).square().mean().item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("rho", [1.0, 0.5, 0.0, -0.5])
def test_importance_is_the_correlation_of_standardised_instances(rho: float) -> None:
    assert importance(*pair(rho)).item() == pytest.approx(rho, abs=1e-6)


def test_importance_of_nothing_is_zero() -> None:
    assert importance(torch.zeros(1, 2, 3, 3), torch.randn(1, 2, 3, 3)).item() == 0.0


@pytest.mark.parametrize(
    ("form", "rho", "scale"),
    [
        ("none", 0.5, 1.0),
        ("weight", 0.5, 1.0),
        ("shifted", 0.5, 0.75),
        ("floor", 0.5, 0.5),
        ("floor", -0.5, 0.1),
        ("cosine", 0.5, 0.5),
        ("cosine", -0.5, 0.0),
    ],
)
def test_scale_of_each_form(form: str, rho: float, scale: float) -> None:
    student, teacher = pair(rho)
    scaled, _ = deflate(student, teacher, form)
    assert torch.allclose(scaled, student * scale, atol=1e-6)


def test_weights_favour_instances_near_the_teacher_and_average_to_one() -> None:
    near, teacher = pair(1.0)
    far, _ = pair(0.0)
    _, weights = deflate(torch.cat([near, far]), torch.cat([teacher, teacher]), "weight")
    assert weights.tolist() == pytest.approx([4 / 3, 2 / 3])  # gammas 1 and 1/2, over their mean 3/4


@pytest.mark.parametrize("form", ["none", "weight", "shifted", "floor"])
@pytest.mark.parametrize("rho", [0.9, 0.3, 0.0, -0.4, -0.9])
def test_the_sound_forms_always_pull_towards_the_teacher(form: str, rho: float) -> None:
    student, teacher = pair(rho)
    student.requires_grad_()
    scaled, weights = deflate(student, teacher, form)
    error = (teacher - scaled).square().mean(dim=(1, 2, 3))
    (error if weights is None else error * weights).sum().backward()
    assert (student.grad * teacher).sum() < 0, "descending the loss must increase the correlation"


def test_opposed_instances_weigh_alike_though_their_cosine_rounds_below_minus_one() -> None:
    alpha = torch.tensor([-1.0 - 2e-7, -1.0, -1.0 + 2e-7])
    for form, place in (("weight", 1), ("shifted", 0)):
        found = deflation(alpha, form)[place]
        assert found is not None
        assert found.tolist() == [found[0].item()] * 3
        assert 0 < found[0] < 1e-5


def test_weights_carry_no_gradient() -> None:
    student = torch.randn(3, 2, 4, 4, requires_grad=True)
    _, weights = deflate(student, torch.randn(3, 2, 4, 4), "weight")
    assert not weights.requires_grad


def test_the_literal_form_is_differentiated_through_its_scale() -> None:
    student, teacher = pair(0.6)
    student.requires_grad_()
    scaled, _ = deflate(student, teacher, "cosine")
    (teacher - scaled).square().mean().backward()
    # 1 - rho^2 for features of unit variance: descending along the teacher, d/drho = -2 rho, and rho = <S, T> / 4
    along = (student.grad * (teacher - 0.6 * student.detach())).sum().item()
    assert along == pytest.approx(-2 * 0.6 * (1 - 0.6**2), abs=1e-5)


def test_the_literal_form_has_no_pull_without_correlation() -> None:
    student, teacher = pair(0.0)
    student.requires_grad_()
    scaled, _ = deflate(student, teacher, "cosine")
    (teacher - scaled).square().mean().backward()
    assert student.grad.abs().max() < 1e-6


def test_a_box_of_a_ramp_keeps_its_values() -> None:
    ramp = torch.arange(8.0).repeat(8, 1)[None, None]  # value = column index = x / stride - 0.5
    cut = box_instances(ramp, torch.tensor([[0.0, 8, 8, 40, 40]]), stride=8, size=4)
    assert cut.shape == (1, 1, 4, 4)
    assert torch.allclose(cut[0, 0, 0], torch.tensor([1.0, 2.0, 3.0, 4.0]), atol=1e-5)


def test_small_boxes_are_left_to_the_finest_level() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 15, 40], [0.0, 0, 0, 16, 16], [0.0, 0, 0, 64, 64]])
    assert boxes_of_level(boxes, 8, finest=True).shape[0] == 3
    assert boxes_of_level(boxes, 8, finest=False).shape[0] == 2
    assert boxes_of_level(boxes, 32, finest=False).shape[0] == 1
