"""The thin modules: each equals its function behind an adapter, and the settings of IMA nest as in the paper."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ima_yolo.align import box_instances
from ima_yolo.losses import (
    CWDLoss,
    IMALoss,
    L2Loss,
    LevelLoss,
    MGDLoss,
    PKDLoss,
    cwd_loss,
    ima_loss,
    l2_loss,
    mgd_loss,
    pkd_loss,
)
from ima_yolo.masks import Regions, mask_spatial

BOXES = torch.tensor([[0.0, 4, 4, 40, 36], [1.0, 10, 20, 60, 60]])
REGIONS = Regions(BOXES, {8: torch.rand(2, 1, 8, 8)})


def maps(student: int = 4, teacher: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, student, 8, 8, requires_grad=True), torch.randn(2, teacher, 8, 8)


def call(module: LevelLoss, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return module(student, teacher, 8, REGIONS)


@pytest.mark.parametrize(
    ("module", "function"),
    [(L2Loss(4, 6), l2_loss), (CWDLoss(4, 6), cwd_loss), (PKDLoss(4, 6), pkd_loss)],
)
def test_module_is_its_function_after_the_adapter(module: LevelLoss, function) -> None:
    student, teacher = maps()
    assert torch.equal(call(module, student, teacher), function(module.adapter(student), teacher))


def test_mgd_module_masks_and_generates() -> None:
    module = MGDLoss(4, 6, mask_ratio=0.5, rng=torch.Generator().manual_seed(7))
    student, teacher = maps()
    masked = mask_spatial(module.adapter(student), 0.5, torch.Generator().manual_seed(7))
    assert torch.equal(call(module, student, teacher), mgd_loss(module.generator(masked), teacher))


def test_ima_module_masks_generates_and_aligns() -> None:
    module = IMALoss(4, 6, mask_ratio=0.5, restore="conv", rng=torch.Generator().manual_seed(7))
    student, teacher = maps()
    masked = mask_spatial(module.adapter(student), 0.5, torch.Generator().manual_seed(7))
    assert torch.equal(call(module, student, teacher), ima_loss(module.generator(masked), teacher))


@pytest.mark.parametrize("mask", ["spatial", "frequency"])
@pytest.mark.parametrize("restore", ["conv", "light", "none"])
def test_mask_ratio_zero_equals_no_mask(mask: str, restore: str) -> None:
    student, teacher = maps()
    masked, unmasked = (
        IMALoss(4, 6, mask=kind, mask_ratio=ratio, restore=restore) for kind, ratio in ((mask, 0.0), ("none", 0.5))
    )
    unmasked.load_state_dict(masked.state_dict())
    assert torch.equal(call(masked, student, teacher), call(unmasked, student, teacher))


def test_the_paper_s_ablation_is_four_settings_of_one_module() -> None:
    student, teacher = maps()
    plain = IMALoss(4, 6, mask="none", restore="none", standardized="none", deflation="none")
    control = L2Loss(4, 6)
    control.load_state_dict(plain.state_dict())
    assert call(plain, student, teacher).item() == pytest.approx(call(control, student, teacher).item(), rel=1e-6)
    values = [call(plain, student, teacher).item()]
    for standardized, deflation in (("none", "none"), ("both", "none"), ("both", "weight")):
        torch.manual_seed(1)
        rng = torch.Generator().manual_seed(1)
        module = IMALoss(4, 6, standardized=standardized, deflation=deflation, rng=rng)
        values.append(call(module, student, teacher).item())
    assert len({round(value, 6) for value in values}) == 4


def test_box_instances_are_the_objects() -> None:
    module = IMALoss(4, 6, mask="none", restore="none", instance="box", box_size=5)
    student, teacher = maps()
    cuts = [box_instances(f, BOXES, 8, 5) for f in (module.adapter(student), teacher)]
    assert torch.equal(call(module, student, teacher), ima_loss(*cuts))


def test_small_objects_are_instances_at_the_finest_level_alone() -> None:
    student, teacher = maps()
    small = torch.tensor([[0.0, 4, 4, 40, 36], [1.0, 10, 20, 20, 34]])  # the second is less than two cells wide
    kinds = {"mask": "none", "restore": "none", "instance": "box"}
    finest, coarser = (IMALoss(4, 6, finest=finest, **kinds) for finest in (True, False))
    coarser.load_state_dict(finest.state_dict())
    seen = [module(student, teacher, 8, Regions(boxes, {})) for module, boxes in ((finest, small), (coarser, small))]
    assert seen[0].item() != pytest.approx(seen[1].item(), rel=1e-3)
    assert torch.equal(seen[1], coarser(student, teacher, 8, Regions(small[:1], {})))


@pytest.mark.parametrize("objects", ["gt", "teacher"])
def test_object_weights_change_where_the_loss_looks(objects: str) -> None:
    student, teacher = maps()
    free, bound = (IMALoss(4, 6, mask="none", restore="none", objects=o) for o in ("none", objects))
    bound.load_state_dict(free.state_dict())
    assert call(free, student, teacher).item() != pytest.approx(call(bound, student, teacher).item(), rel=1e-4)


@pytest.mark.parametrize("module", [L2Loss(4, 6), MGDLoss(4, 6), CWDLoss(4, 6), PKDLoss(4, 6), IMALoss(4, 6)])
def test_student_and_every_parameter_get_a_gradient(module: LevelLoss) -> None:
    student, teacher = maps()
    call(module, student, teacher).backward()
    assert student.grad.abs().sum() > 0
    # A loss that ignores shifts gives no gradient to a bias that only shifts.
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        if name.endswith("weight"):
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("module", [L2Loss(4, 6), MGDLoss(4, 6), CWDLoss(4, 6), PKDLoss(4, 6), IMALoss(4, 6)])
def test_half_precision_maps_are_compared_in_single(module: LevelLoss) -> None:
    student, teacher = maps()
    torch.manual_seed(1)  # both calls hide the same positions
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = call(module, student, teacher.bfloat16())
    assert loss.dtype == torch.float32
    torch.manual_seed(1)
    exact = call(module, student, teacher.bfloat16())
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)


def test_a_teacher_map_of_another_size_is_resampled() -> None:
    student, teacher = maps()
    larger = nn.functional.interpolate(teacher, scale_factor=2)
    module = L2Loss(4, 6)
    assert call(module, student, larger).item() == pytest.approx(call(module, student, teacher).item(), rel=0.5)
    assert call(module, student, larger).shape == ()


def test_a_light_generator_restores_at_the_student_s_width_before_the_adapter() -> None:
    module = IMALoss(4, 6, restore="light", rng=torch.Generator().manual_seed(7))
    student, teacher = maps()
    masked = mask_spatial(student, 0.5, torch.Generator().manual_seed(7))
    expected = ima_loss(module.adapter(module.generator(masked)), teacher)
    torch.testing.assert_close(call(module, student, teacher), expected, rtol=1e-6, atol=0)
    heavy = IMALoss(4, 6, restore="conv")
    count = [sum(parameter.numel() for parameter in one.generator.parameters()) for one in (module, heavy)]
    assert count == [2 * 9 * 4, 2 * (9 * 6 * 6 + 6)]
