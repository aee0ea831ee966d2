from __future__ import annotations

import math

import pytest
import torch

from ima_yolo.similarity import cells, divergence, linear_cka


def features(seed: int, columns: int = 4) -> torch.Tensor:
    return torch.randn(500, columns, generator=torch.Generator().manual_seed(seed))


def test_cka_is_one_for_a_rotation_and_a_scale_and_small_for_strangers() -> None:
    rotation, _ = torch.linalg.qr(features(2)[:4])
    assert linear_cka(features(0), 3 * features(0) @ rotation + 5) == pytest.approx(1.0, abs=1e-6)
    assert linear_cka(features(0), features(1, columns=7)) < 0.05
    assert linear_cka(features(0), torch.ones(500, 3)) == 0.0


def test_cka_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    second = first[:, :1]  # cross 4, own sqrt(8) and 2
    assert linear_cka(first, second) == pytest.approx(4 / (math.sqrt(8) * 2))


def test_divergence_of_known_histograms() -> None:
    assert divergence(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])) == 0.0
    assert divergence(torch.zeros(3), torch.ones(5)) == pytest.approx(1.0)
    # P = (1, 0), Q = (1/2, 1/2), M = (3/4, 1/4): (log2(4/3) + log2(2/3)/2 + log2(2)/2) / 2
    expected = (math.log2(4 / 3) + math.log2(2 / 3) / 2 + 0.5) / 2
    assert divergence(torch.zeros(4), torch.tensor([0.0, 1.0])) == pytest.approx(expected)


def test_cells_are_samples_of_channels() -> None:
    maps = torch.arange(24.0).view(2, 3, 2, 2)
    assert cells(maps)[1].tolist() == [1, 5, 9]
    assert cells(maps).shape == (8, 3)
