from __future__ import annotations

import pytest
import torch

from ima_yolo.masks import Regions, box_mask, mask_frequency, mask_spatial, position_weights, random_mask


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_share_of_zeros_is_the_ratio() -> None:
    mask = random_mask(4, 200, 200, 0.3, torch.device("cpu"), seeded())
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(0.7, abs=0.005)  # 160,000 draws: 0.005 is over 4 standard deviations
    assert not torch.equal(mask[0], mask[1]), "each image has a mask of its own"


def test_ratio_zero_hides_nothing() -> None:
    assert random_mask(1, 64, 64, 0.0, torch.device("cpu"), seeded()).all()


def test_a_mask_repeats_with_its_generator_and_leaves_the_global_stream_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = random_mask(1, 8, 8, 0.5, torch.device("cpu"), seeded(3))
    assert torch.equal(first, random_mask(1, 8, 8, 0.5, torch.device("cpu"), seeded(3)))
    assert torch.equal(torch.rand(1), expected)


def test_spatial_mask_hides_whole_positions() -> None:
    features = torch.ones(2, 5, 8, 8)
    masked = mask_spatial(features, 0.5, seeded())
    assert torch.equal(masked.amax(1), masked.amin(1)), "a position is hidden in all channels or in none"
    assert 0 < masked.mean().item() < 1


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_frequency_mask_with_ratio_zero_is_the_identity(size: tuple[int, int]) -> None:
    features = torch.randn(2, 3, *size)
    assert torch.allclose(mask_frequency(features, 0.0, seeded()), features, atol=1e-6)


def test_frequency_mask_removes_a_wave_that_it_hides() -> None:
    row = torch.cos(2 * torch.pi * torch.arange(16) / 4)  # one frequency: a single pair of coefficients
    wave = row.repeat(16, 1)[None, None]
    seen = {round(mask_frequency(wave, 0.5, seeded(seed)).abs().max().item(), 4) for seed in range(20)}
    assert seen == {0.0, 1.0}, "its coefficient is either kept, and the wave whole, or hidden, and nothing left"


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (7, 8), (8, 7)])
def test_frequency_mask_leaves_a_wave_whole_or_not_at_all(rows: int, columns: int) -> None:
    """Also where the half spectrum holds it twice: in its first column, and in its last one for an even width."""
    down = torch.cos(2 * torch.pi * torch.arange(rows) * 2 / rows)[:, None]
    across = {"constant": torch.ones(columns), "highest": (-1.0) ** torch.arange(columns)}
    for name, line in across.items():
        if name == "highest" and columns % 2:
            continue
        wave = (down * line).expand(1, 1, -1, -1)
        shares = [(mask_frequency(wave, 0.5, seeded(seed)) * wave).sum() / wave.square().sum() for seed in range(30)]
        assert {round(float(share), 4) for share in shares} == {0.0, 1.0}, name


def test_frequency_mask_takes_half_precision() -> None:
    masked = mask_frequency(torch.randn(1, 2, 6, 10).half(), 0.5, seeded())
    assert masked.dtype == torch.float32


def test_boxes_mark_the_cells_they_overlap() -> None:
    boxes = torch.tensor([[0.0, 9, 1, 15, 7], [1.0, 0, 0, 1, 1], [1.0, 23, 23, 32, 32]])  # stride 8: 4 x 4 cells
    mask = box_mask(boxes, 2, 4, 4, 8)
    first = torch.zeros(4, 4)
    first[0, 1] = 1
    second = torch.zeros(4, 4)
    second[0, 0] = 1
    second[2:, 2:] = 1
    assert torch.equal(mask[:, 0], torch.stack([first, second]))


def test_overlapping_boxes_count_once_and_no_box_marks_nothing() -> None:
    twice = torch.tensor([[0.0, 0, 0, 8, 8], [0.0, 0, 0, 8, 8]])
    assert box_mask(twice, 1, 2, 2, 8).max() == 1
    assert box_mask(torch.zeros(0, 5), 1, 2, 2, 8).sum() == 0


def test_position_weights_mix_object_and_background() -> None:
    regions = Regions(torch.tensor([[0.0, 0, 0, 8, 8]]), {8: torch.tensor([[[[0.5, 0.0], [1.0, 0.0]]]])})
    assert position_weights("none", regions, (1, 2, 2), 8, 0.2) is None
    by_box = position_weights("gt", regions, (1, 2, 2), 8, 0.2)
    assert torch.allclose(by_box, torch.tensor([[[[1.0, 0.2], [0.2, 0.2]]]]))
    by_teacher = position_weights("teacher", regions, (1, 2, 2), 8, 0.2)
    assert torch.allclose(by_teacher, torch.tensor([[[[0.6, 0.2], [1.0, 0.2]]]]))
