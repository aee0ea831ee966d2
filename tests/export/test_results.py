"""Detections in their forms, from numbers worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ima_yolo.export.results import Detections, category_id

NAMES = {0: "RBC", 1: "WBC"}


def make(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(classes, np.int64),
        NAMES,
        (100, 200),
    )


FOUND = make([[20, 10, 60, 30], [0, 0, 200, 100], [1, 2, 3, 4]], [0.75, 0.5, 0.25], [0, 1, 0])


def test_summary_counts_by_class() -> None:
    assert FOUND.summary() == "2 RBC, 1 WBC"
    assert make([], [], []).summary() == "(no detections)"
    assert len(FOUND) == 3


def test_yolo_lines_are_shares_of_the_picture() -> None:
    first, second, _ = FOUND.to_yolo_txt().splitlines()
    assert first == "0 0.2 0.2 0.2 0.2"  # centre (40, 20) of 200x100, size 40x20
    assert second == "1 0.5 0.5 1 1"
    assert FOUND.to_yolo_txt(with_conf=True).splitlines()[0] == "0 0.2 0.2 0.2 0.2 0.75"
    assert make([], [], []).to_yolo_txt() == ""


def test_dictionaries_are_plain_json() -> None:
    records = json.loads(json.dumps(FOUND.to_dicts()))
    box = {"x1": 20.0, "y1": 10.0, "x2": 60.0, "y2": 30.0}
    assert records[0] == {"name": "RBC", "class": 0, "confidence": 0.75, "box": box}
    assert len(records) == 3


def test_coco_numbers_classes_as_ultralytics_does() -> None:
    from ultralytics.data.converter import coco80_to_coco91_class
    from ultralytics.utils import YAML
    from ultralytics.utils.checks import check_yaml

    names = YAML.load(check_yaml("coco.yaml"))["names"]
    assert [category_id(index, names) for index in names] == coco80_to_coco91_class()
    assert [category_id(index, {**names, 79: "brush"}) for index in names] == list(range(1, 81))
    assert [record["category_id"] for record in FOUND.to_coco("a")] == [1, 2, 1]


def test_drawing_leaves_the_picture_alone_and_marks_the_box() -> None:
    image = np.full((100, 200, 3), 30, np.uint8)
    drawn = make([[20, 40, 60, 80]], [0.75], [0]).draw(image)
    assert (image == 30).all()
    for row, column in ((60, 20), (60, 60), (80, 40)):  # left, right and lower side
        assert (drawn[row, column] != 30).any()
    assert (drawn[50:70, 30:50] == 30).all()  # the inside stays


@pytest.mark.parametrize("box", [[0, 0, 199, 99], [190, 0, 200, 5], [-0.4, 99, 0.2, 100]])
def test_drawing_at_the_borders(box: list[float]) -> None:
    drawn = make([box], [0.5], [1]).draw(np.zeros((100, 200, 3), np.uint8))
    assert drawn.any()


def test_classes_differ_in_colour() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    colours = {tuple(make([[20, 40, 60, 80]], [0.5], [c]).draw(image)[60, 20].tolist()) for c in range(20)}
    assert len(colours) == 20
