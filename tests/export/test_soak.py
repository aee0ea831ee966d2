"""Many pictures and many threads through one `Detector`: the same results, and no growth of memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ima_yolo.export import Detector
from ima_yolo.export.postprocess import Thresholds

PICTURES, THREADS = 5000, 50
GROWTH = 20_000_000  # bytes that the process may grow by after the first tenth


def resident() -> int:
    """Bytes of this process that are in memory now."""
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("this system does not tell a process's memory")
    return int(status.read_text().split()[1]) * 4096


@pytest.fixture
def images(photos: list[Path]) -> list[np.ndarray]:
    first, second = (cv2.imread(str(path)) for path in photos)
    # Of many shapes, since buffers are kept from one picture to the next.
    return [cv2.resize(image, (40 + 9 * n, 150 - 6 * n)) for n in range(10) for image in (first, second)]


def test_pictures_one_after_the_other(graphs: dict[str, Path], images: list[np.ndarray]) -> None:
    detector = Detector(graphs["raw"], threads=1)
    expected, before = [detector(image) for image in images], 0
    for number in range(PICTURES):
        found = detector(images[number % len(images)])
        if number == PICTURES // 10:
            before = resident()
        if number % 7 == 0:
            np.testing.assert_array_equal(found.boxes, expected[number % len(images)].boxes)
    assert resident() - before < GROWTH
    assert sum(len(found) for found in expected) > 50


def test_threads_that_share_one(graphs: dict[str, Path], images: list[np.ndarray]) -> None:
    detector = Detector(graphs["raw"], threads=1)
    expected = [detector(image) for image in images]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(detector, images * THREADS))
        before = resident()
        again = list(pool.map(detector, images * THREADS))
        assert resident() - before < GROWTH
    for number, found in enumerate([*together, *again]):
        np.testing.assert_array_equal(found.boxes, expected[number % len(images)].boxes)
        np.testing.assert_array_equal(found.scores, expected[number % len(images)].scores)


@pytest.mark.parametrize("name", ["yolo26n-pose", "yolo26n-seg"])
def test_lists_from_several_threads_with_threads_of_their_own(
    name: str, written: Callable[..., Path], images: list[np.ndarray]
) -> None:
    path = written(name)
    expected = [Detector(path, threads=1)(image) for image in images]
    detector, shifts = Detector(path), range(6)

    def look(shift: int) -> list[Any]:
        return detector.detect(images[shift:] + images[:shift], Thresholds())

    with ThreadPoolExecutor(len(shifts)) as pool:
        together = list(pool.map(look, shifts))
    for shift, results in zip(shifts, together, strict=True):
        for found, alone in zip(results, expected[shift:] + expected[:shift], strict=True):
            np.testing.assert_array_equal(found.classes, alone.classes)
            np.testing.assert_array_equal(found.boxes, alone.boxes)
            np.testing.assert_array_equal(found.scores, alone.scores)
            if alone.keypoints is not None:
                np.testing.assert_array_equal(found.keypoints, alone.keypoints)
            if alone.masks is not None:
                for ours, theirs in zip(found.masks.patches, alone.masks.patches, strict=True):
                    np.testing.assert_array_equal(ours, theirs)
    assert sum(len(found) for found in expected) > 20


def test_a_result_outlives_the_next_picture(toy: Callable[..., Path]) -> None:
    detector = Detector(toy(np.array([[[32, 32, 32, 16, 0.9, 0.1]]]).transpose(0, 2, 1)))
    first = detector(np.zeros((100, 200, 3), np.uint8))
    kept = first.boxes.copy()
    detector(np.zeros((50, 30, 3), np.uint8))
    np.testing.assert_array_equal(first.boxes, kept)
