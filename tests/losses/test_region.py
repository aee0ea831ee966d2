from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from ima_yolo.losses import IMALoss, ima_loss
from ima_yolo.losses.region import region_ids, region_loss
from ima_yolo.masks import Regions

FORMS = [
    ("both", "weight"),
    ("both", "shifted"),
    ("both", "floor"),
    ("both", "cosine"),
    ("student", "none"),
    ("none", "none"),
]


def maps(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("standardized", "deflation"), FORMS)
def test_regions_that_are_whole_images_give_the_loss_of_images(standardized: str, deflation: str) -> None:
    ids = torch.arange(3)[:, None, None].expand(3, 4, 6)
    expected = ima_loss(maps(0), maps(1), standardized, deflation)
    assert region_loss(maps(0), maps(1), ids, standardized, deflation).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


@pytest.mark.parametrize(("standardized", "deflation"), FORMS)
def test_a_rectangle_gives_the_loss_of_its_cut(standardized: str, deflation: str) -> None:
    ids = torch.full((3, 4, 6), -1)
    ids[1, 1:4, 2:5] = 0
    cut = (slice(1, 2), slice(None), slice(1, 4), slice(2, 5))
    expected = ima_loss(maps(0)[cut], maps(1)[cut], standardized, deflation)
    assert region_loss(maps(0), maps(1), ids, standardized, deflation).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_the_mean_is_over_regions_and_not_over_cells() -> None:
    student, teacher = torch.zeros(1, 1, 2, 6), torch.ones(1, 1, 2, 6)
    teacher[..., 2:] = 3.0
    ids = torch.zeros(1, 2, 6, dtype=torch.long)
    ids[..., 2:] = 1  # 4 cells of error 1, 8 cells of error 9
    assert region_loss(student, teacher, ids, "none", "none").item() == pytest.approx((1 + 9) / 2)


def test_a_shift_of_a_region_changes_nothing_once_both_are_standardized() -> None:
    ids = (torch.arange(6) > 2).long().expand(3, 4, 6) + 2 * torch.arange(3)[:, None, None]
    moved = maps(1) * 3 + 7 * ids[:, None]
    assert region_loss(maps(0), moved, ids).item() == pytest.approx(region_loss(maps(0), maps(1), ids).item(), abs=1e-4)


def test_numbers_of_regions() -> None:
    classes = torch.full((2, 8, 8), 7)
    classes[0, :, :4] = 0
    classes[1] = 255
    classes[1, :2, :2] = 3  # one cell of the map: too small
    classes[1, 4:, :] = 7
    ids = region_ids(classes, (4, 4))
    assert ids[0].tolist() == [[0, 0, 1, 1]] * 4
    assert ids[1].tolist() == [[-1] * 4] * 2 + [[2] * 4] * 2, "the same class in another image is another region"


def test_no_region_gives_nothing_and_keeps_the_graph() -> None:
    student = maps(0).requires_grad_()
    loss = region_loss(student, maps(1), torch.full((3, 4, 6), -1))
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.abs().sum() == 0


@pytest.mark.parametrize("deflation", ["none", "cosine"])
def test_the_gradient_is_right(deflation: str) -> None:
    ids = (torch.arange(6) > 2).long().expand(3, 4, 6)
    student, teacher = maps(0, torch.float64).requires_grad_(), maps(1, torch.float64)
    assert gradcheck(lambda x: region_loss(x, teacher, ids, "both", deflation), student)


def test_the_loss_of_a_level_takes_regions_where_the_batch_knows_classes() -> None:
    loss = IMALoss(5, 5, mask="none", restore="none", instance="region")
    classes = torch.zeros(3, 32, 48, dtype=torch.uint8)
    classes[:, :, 24:] = 1
    found = loss(maps(0), maps(1), 8, Regions(torch.zeros(0, 5), {}, classes))
    expected = region_loss(loss.adapter(maps(0)), maps(1), region_ids(classes, (4, 6)))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
