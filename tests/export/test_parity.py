"""The comparison itself: it must see a difference, and must not see a swap of rows as one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ima_yolo.export.metadata import parse_metadata
from ima_yolo.export.parity import FP16, FP32, Difference, compare

RAW = parse_metadata(
    {"task": "detect", "names": "{0: 'a', 1: 'b'}", "stride": "32", "imgsz": "[64, 128]", "head": "Detect"}, "x.onnx"
)
TOPK = dataclasses.replace(RAW, end2end=True)
EMBEDDED = dataclasses.replace(RAW, args={"nms": True})
QUERIES = dataclasses.replace(RAW, head="RTDETRDecoder")
DENSE = dataclasses.replace(RAW, task="semantic")
ROWS = np.array(
    [[[0, 0, 10, 10, 0.9, 0], [5, 5, 20, 20, 0.8, 1], [5, 5, 20, 20, 0.7, 0], [30, 0, 40, 9, 0.7, 1]]], np.float32
)


def changed(array: np.ndarray, where: tuple[int, ...], by: float) -> np.ndarray:
    copy = array.copy()
    copy[where] += by
    return copy


def test_raw_outputs_are_compared_element_by_element() -> None:
    raw = np.random.default_rng(0).random((1, 7, 20)).astype(np.float32)  # 4 box, 2 score and 1 other channel
    assert compare([raw], [raw], RAW, 0.0) == Difference()
    assert compare([raw], [changed(raw, (0, 2, 5), 3.0)], RAW, 0.0).box == pytest.approx(3.0, abs=1e-6)
    assert compare([raw], [changed(raw, (0, 4, 5), 0.5)], RAW, 0.0).score == pytest.approx(0.5, abs=1e-6)
    last = compare([raw], [changed(raw, (0, 6, 5), 0.5)], RAW, 0.0)
    assert (last.box, last.score) == (0.0, 0.0)
    assert last.other == pytest.approx(0.5 / raw[0, 6].max())


def test_more_outputs_count_as_other() -> None:
    raw, masks = np.zeros((1, 6, 20), np.float32), np.full((1, 32, 4, 4), 2.0, np.float32)
    difference = compare([raw, masks], [raw, changed(masks, (0, 3, 1, 1), 0.2)], RAW, 0.0)
    assert difference.other == pytest.approx(0.1)


@pytest.mark.parametrize("metadata", [TOPK, EMBEDDED])
def test_swapped_rows_are_the_same(metadata: object) -> None:
    assert compare([ROWS], [ROWS[:, [0, 1, 3, 2]]], metadata, 0.0) == Difference()


def test_rows_are_matched_within_their_class() -> None:
    moved = compare([ROWS], [changed(ROWS, (0, 0, 2), 4.0)], TOPK, 0.0)
    assert (moved.box, moved.score) == (4.0, 0.0)
    weaker = compare([ROWS], [changed(ROWS, (0, 0, 4), -0.05)], TOPK, 0.0)
    assert weaker.box == 0.0
    assert weaker.score == pytest.approx(0.05)
    other_class = compare([ROWS], [changed(ROWS, (0, 1, 5), -1.0)], TOPK, 0.0)
    assert other_class.box == 25.0  # the nearest box of class 1 is the last row's


def test_a_row_that_only_one_side_has_is_seen() -> None:
    fewer = ROWS.copy()
    fewer[0, 3] = 0  # a zero row is padding
    for first, second in ((ROWS, fewer), (fewer, ROWS)):
        assert compare([first], [second], EMBEDDED, 0.0, conf=0.25).box == 25.0


def test_all_rows_gone_is_infinite() -> None:
    assert compare([ROWS], [np.zeros_like(ROWS)], EMBEDDED, 0.0, conf=0.25).box == np.inf


def test_rows_at_the_cut_off_may_differ() -> None:
    other = ROWS.copy()
    other[0, 3] = [50, 50, 60, 60, 0.7, 0]  # as good as the row that it displaced from a full list
    assert compare([ROWS], [other], TOPK, 1e-3) == Difference()
    other[0, 1, 0] += 3  # a row well above the cut-off still counts
    assert compare([ROWS], [other], TOPK, 1e-3).box == 3.0


def test_scores_count_even_where_all_rows_are_at_the_cut_off() -> None:
    level = ROWS.copy()
    level[..., 4] = 0.5
    assert compare([level], [changed(level, (0, slice(None), 4), 0.1)], TOPK, 0.5).score == pytest.approx(0.1)


def test_boxes_of_queries_are_shares_of_the_input() -> None:
    shares = ROWS * np.array([0.01, 0.01, 0.01, 0.01, 1, 1], np.float32)
    difference = compare([shares], [changed(shares, (0, 0, 0), 0.01)], QUERIES, 0.0)
    assert difference.box == pytest.approx(1.28, rel=1e-4)  # one hundredth of 128 px


def test_class_maps_give_the_share_of_pixels() -> None:
    classes = np.zeros((1, 10, 10), np.uint8)
    assert compare([classes], [changed(classes, (0, 0, 0), 3)], DENSE, 0.0).other == pytest.approx(0.01)


@pytest.mark.parametrize("metadata", [RAW, TOPK, DENSE])
def test_other_shapes_and_values_that_are_no_numbers_are_infinite(metadata: object) -> None:
    assert compare([ROWS], [ROWS[:, :3]], metadata, 0.0).score == np.inf
    assert compare([ROWS], [ROWS, ROWS], metadata, 0.0).score == np.inf
    broken = changed(ROWS, (0, 0, 0), np.nan)
    assert compare([ROWS], [broken], metadata, 0.0).score == np.inf
    assert compare([broken], [ROWS], metadata, 0.0).score == np.inf


def test_limits() -> None:
    assert Difference(0.01, 1e-4, 1e-4).within(FP32.limit)
    for beyond in (Difference(box=0.1), Difference(score=0.01), Difference(other=0.01)):
        assert not beyond.within(FP32.limit)
        assert beyond.within(FP16.limit)
    assert Difference(1, 0, 3).merge(Difference(0, 2, 1)) == Difference(1, 2, 3)
