from __future__ import annotations

import numpy as np
import pytest

from ima_yolo.experiment.report.analysis import analysis, ground_truth
from ima_yolo.experiment.report.mistakes import Objects

NAMES = {0: "cell", 1: "plate"}
SMALL, MEDIUM, LARGE = (0, 0, 20, 20), (100, 0, 140, 40), (200, 0, 400, 200)  # 400, 1600, 40000 px


def objects(*rows: tuple) -> Objects:
    boxes = np.array([row[0] for row in rows], float).reshape(-1, 4)
    return Objects(boxes, np.array([row[1] for row in rows], int), np.array([row[2] for row in rows], float))


TRUTH = [objects((SMALL, 0, 0), (MEDIUM, 0, 0)), objects((LARGE, 1, 0))]


def test_perfect_detections() -> None:
    found = analysis(TRUTH, [Objects(one.boxes, one.classes, np.full(len(one.classes), 0.9)) for one in TRUTH], NAMES)
    assert found["ap_of_size"] == {"small": 1, "medium": 1, "large": 1}
    assert found["objects_of_size"] == {"small": 1, "medium": 1, "large": 1}
    assert found["precision"] == {"cell": [1] * 101, "plate": [1] * 101}
    assert found["mistakes"]["correct"] == 3
    assert found["images"] == 2


def test_a_missed_half_ends_the_curve_at_recall_one_half() -> None:
    found = analysis(TRUTH, [objects((SMALL, 0, 0.9)), objects()], NAMES)
    assert found["precision"]["cell"] == [1] * 51 + [0] * 50
    assert found["precision"]["plate"] == [0] * 101
    assert found["ap_of_size"] == {"small": 1, "medium": 0, "large": 0}


def test_a_box_that_is_off_counts_at_the_thresholds_that_it_reaches() -> None:
    off = (0, 0, 20, 13.2)  # IoU 0.66 reaches 0.5, 0.55, 0.6 and 0.65 of the ten thresholds
    found = analysis(TRUTH, [objects((off, 0, 0.9)), objects()], NAMES)
    assert found["ap_of_size"]["small"] == pytest.approx(0.4)


def test_a_class_and_a_size_without_objects_say_nothing() -> None:
    found = analysis(TRUTH[:1], [objects((SMALL, 0, 0.9), (MEDIUM, 0, 0.8))], NAMES)
    assert list(found["precision"]) == ["cell"]
    assert found["ap_of_size"]["large"] is None


def test_a_model_that_finds_nothing() -> None:
    found = analysis(TRUTH, [objects(), objects()], NAMES)
    assert found["ap_of_size"] == {"small": 0, "medium": 0, "large": 0}
    assert found["mistakes"]["missed"] == 3


def test_labels_become_boxes_in_pixels(tiny_data) -> None:
    images = sorted((tiny_data.parent / "images" / "val").iterdir())
    truth = ground_truth(images, {0: "disc", 1: "square", 2: "triangle"})
    label = (tiny_data.parent / "labels" / "val" / "0.txt").read_text().splitlines()[0].split()
    kind, x, y, w, h = int(label[0]), *(96 * float(value) for value in label[1:])
    assert truth[0].classes[0] == kind
    assert truth[0].boxes[0] == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
