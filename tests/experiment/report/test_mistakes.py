"""Kinds of error on boxes whose overlaps are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ima_yolo.experiment.report.mistakes import KINDS, Objects, harmony, mistakes, overlaps, total

CELL, PLATE = 0, 1
HERE = (0, 0, 10, 10)
FAR = (50, 50, 60, 60)


def objects(*rows: tuple) -> Objects:
    """Rows of (box, class, score)."""
    boxes = np.array([row[0] for row in rows], float).reshape(-1, 4)
    return Objects(boxes, np.array([row[1] for row in rows], int), np.array([row[2] for row in rows], float))


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {key: value for key, value in counts.items() if value}


def test_overlaps_by_hand() -> None:
    # (0,0,10,10) and (5,0,15,10) share 50 of 150; (0,0,10,10) and (0,0,10,5) share 50 of 100
    first, second = np.array([HERE], float), np.array([(5, 0, 15, 10), (0, 0, 10, 5), FAR], float)
    assert overlaps(first, second) == pytest.approx(np.array([[1 / 3, 1 / 2, 0]]))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([(HERE, CELL, 0.9)], {"correct": 1}),
        ([(HERE, PLATE, 0.9)], {"class": 1}),
        ([((5, 0, 15, 10), CELL, 0.9)], {"location": 1}),
        ([((5, 0, 15, 10), PLATE, 0.9)], {"both": 1, "missed": 1}),
        ([(HERE, CELL, 0.9), ((0, 0, 10, 9), CELL, 0.8)], {"correct": 1, "duplicate": 1}),
        ([(FAR, CELL, 0.9)], {"background": 1, "missed": 1}),
        ([], {"missed": 1}),
        ([(HERE, CELL, 0.1)], {"missed": 1}),
        ([((9, 9, 19, 19), CELL, 0.9)], {"background": 1, "missed": 1}),  # overlap 1 / 199
    ],
)
def test_each_kind_alone(found: list[tuple], expected: dict[str, int]) -> None:
    counts = mistakes(objects((HERE, CELL, 0)), objects(*found), conf=0.25)
    assert nonzero(counts) == {**expected, "objects": 1}


def test_the_more_confident_detection_takes_the_object() -> None:
    better_box_less_sure = [(HERE, CELL, 0.5), ((0, 0, 10, 8), CELL, 0.9)]
    counts = mistakes(objects((HERE, CELL, 0)), objects(*better_box_less_sure), conf=0.25)
    assert nonzero(counts) == {"correct": 1, "duplicate": 1, "objects": 1}


def test_a_detection_takes_the_free_object_that_it_overlaps_most() -> None:
    truth = objects((HERE, CELL, 0), ((0, 0, 10, 9), CELL, 0))
    counts = mistakes(truth, objects((HERE, CELL, 0.9), (HERE, CELL, 0.8)), conf=0.25)
    assert nonzero(counts) == {"correct": 2, "objects": 2}


def test_an_empty_image() -> None:
    assert nonzero(mistakes(objects(), objects((HERE, CELL, 0.9)), conf=0.25)) == {"background": 1}
    assert nonzero(mistakes(objects(), objects(), conf=0.25)) == {}


def test_every_detection_and_object_is_counted_once() -> None:
    rng = np.random.default_rng(0)

    def random(count: int) -> Objects:
        corner = rng.uniform(0, 40, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(5, 20, (count, 2))], 1)
        return Objects(boxes, rng.integers(0, 3, count), rng.uniform(0.3, 1, count))

    for _ in range(50):
        truth, found = random(8), random(12)
        counts = mistakes(truth, found, conf=0.25)
        assert counts["correct"] + sum(counts[kind] for kind in KINDS if kind != "missed") == 12
        assert counts["correct"] + counts["missed"] <= counts["objects"] == 8


def test_totals_and_f1_by_hand() -> None:
    one = mistakes(objects((HERE, CELL, 0), (FAR, CELL, 0)), objects((HERE, CELL, 0.9)), conf=0.25)
    assert harmony(one) == pytest.approx(2 / 3)  # 1 hit, 0 wrong, 1 missed: 2 / (2 + 0 + 1)
    assert harmony(mistakes(objects(), objects(), 0.25)) == 1
    assert total([one, one])["missed"] == 2
