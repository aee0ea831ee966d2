"""NMS against a case worked out by hand and against torchvision."""

from __future__ import annotations

import numpy as np
import pytest

from ima_yolo.export.nms import BLOCK, nms


def test_by_hand() -> None:
    # Overlaps with the first: 5*10/(100+100-50) = 1/3, 8*10/(100+100-80) = 2/3; the second and third: 7*10/130 = 0.54.
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [2, 0, 12, 10], [40, 40, 50, 50]], np.float32)
    scores = np.array([0.9, 0.6, 0.8, 0.7], np.float32)
    assert nms(boxes, scores, 0.7, 300).tolist() == [0, 2, 3, 1]
    assert nms(boxes, scores, 0.6, 300).tolist() == [0, 3, 1]
    assert nms(boxes, scores, 0.3, 300).tolist() == [0, 3]
    assert nms(boxes, scores, 0.7, 2).tolist() == [0, 2]


def test_a_suppressed_box_suppresses_nothing() -> None:
    # A chain: 2/3 between neighbours, 3/7 between the ends.
    boxes = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10]], np.float32)
    assert nms(boxes, np.array([0.9, 0.8, 0.7], np.float32), 0.5, 300).tolist() == [0, 2]


def test_equal_scores_keep_their_order_and_empty_boxes_stay() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [5, 5, 5, 5], [5, 5, 5, 5]], np.float32)
    assert nms(boxes, np.full(4, 0.5, np.float32), 0.5, 300).tolist() == [0, 2, 3]


def test_nothing_in_nothing_out() -> None:
    assert nms(np.empty((0, 4), np.float32), np.empty(0, np.float32), 0.7, 300).tolist() == []


@pytest.mark.parametrize("most", [0, 1 << 15, 1 << 30])  # boxes in blocks, as they come, by pairs
@pytest.mark.parametrize("iou", [0.0, 0.45, 0.6, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 50, BLOCK, 3 * BLOCK + 7, 1500])
@pytest.mark.parametrize("whole", [False, True])  # whole coordinates give overlaps that are exactly the threshold
def test_equals_torchvision(most: int, iou: float, count: int, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ima_yolo.export.nms.MOST_PAIRS", most)
    import torch
    from torchvision.ops import nms as reference

    rng = np.random.default_rng(count)
    corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(1, 30, (count, 2))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    boxes = boxes.round() if whole else boxes
    scores = rng.integers(0, 200, count).astype(np.float32) / 200  # with ties
    expected = reference(torch.from_numpy(boxes), torch.from_numpy(scores), iou).tolist()
    assert nms(boxes, scores, iou, 10**6).tolist() == expected
    assert nms(boxes, scores, iou, 20).tolist() == expected[:20]
