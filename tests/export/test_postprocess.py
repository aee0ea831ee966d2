"""Readers of graph outputs: by hand, and against Ultralytics' own."""

from __future__ import annotations

import numpy as np
import pytest

from ima_yolo.errors import IMAError
from ima_yolo.export.postprocess import Thresholds, decode_queries, decode_raw, decode_topk

# Columns are anchors: cx, cy, w, h, score of class 0, score of class 1.
RAW = np.array(
    [[[10, 10, 8, 8, 0.9, 0.1], [11, 10, 8, 8, 0.2, 0.8], [11, 10, 8, 8, 0.7, 0.3], [40, 40, 6, 4, 0.1, 0.25]]],
    np.float32,
).transpose(0, 2, 1)
ROWS = np.array(
    [[[6, 6, 14, 14, 0.9, 0], [7, 6, 15, 14, 0.8, 1], [1, 2, 3, 4, 0.25, 1], [0, 0, 0, 0, 0, 0]]], np.float32
)


def test_raw_by_hand() -> None:
    # Anchors 0 and 2 are of class 0 and overlap by 7*8/(64+64-56) = 0.78; anchor 3 is not above 0.25.
    boxes, scores, classes, extra = decode_raw(RAW[0], Thresholds(), classes=2)
    assert extra.shape == (2, 0)
    np.testing.assert_allclose(boxes, [[6, 6, 14, 14], [7, 6, 15, 14]])
    np.testing.assert_allclose(scores, [0.9, 0.8])
    assert classes.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("changes", "scores"),
    [
        ({"iou": 0.8}, [0.9, 0.8, 0.7]),
        ({"agnostic_nms": True}, [0.9]),
        ({"conf": 0.2}, [0.9, 0.8, 0.25]),
        ({"conf": 0.85}, [0.9]),
        ({"classes": [1]}, [0.8]),
        ({"classes": [1], "conf": 0.2, "agnostic_nms": True}, [0.8, 0.25]),
        ({"classes": []}, []),
        ({"max_det": 1}, [0.9]),
        ({"conf": 1.0}, []),
    ],
)
def test_raw_thresholds(changes: dict[str, object], scores: list[float]) -> None:
    assert decode_raw(RAW[0], Thresholds(**changes), classes=2)[1].tolist() == pytest.approx(scores)


@pytest.mark.parametrize(
    ("changes", "scores"),
    [
        ({}, [0.9, 0.8]),
        ({"conf": 0.2}, [0.9, 0.8, 0.25]),
        ({"conf": 0.0}, [0.9, 0.8, 0.25]),  # zero rows are padding
        ({"classes": [1]}, [0.8]),
        ({"max_det": 1}, [0.9]),
        ({"classes": [1], "conf": 0.1, "max_det": 1}, [0.8]),
    ],
)
def test_topk_thresholds(changes: dict[str, object], scores: list[float]) -> None:
    boxes, found, classes, _ = decode_topk(ROWS[0], Thresholds(**changes))
    assert found.tolist() == pytest.approx(scores)
    assert len(boxes) == len(classes) == len(scores)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("conf", [0.001, 0.25])
@pytest.mark.parametrize("classes", [None, [0, 40, 79]])
@pytest.mark.parametrize("anchors", [500, 5000])
def test_raw_equals_ultralytics(agnostic: bool, conf: float, classes: list[int] | None, anchors: int) -> None:
    import torch
    from ultralytics.utils.nms import non_max_suppression

    rng = np.random.default_rng(anchors)
    boxes = rng.uniform([0, 0, 5, 5], [640, 640, 200, 200], (anchors, 4)).T
    output = np.concatenate([boxes, rng.beta(0.05, 1, (80, anchors))])[None].astype(np.float32)
    theirs = non_max_suppression(torch.from_numpy(output), conf, 0.7, classes, agnostic, max_det=300, nc=80)[0].numpy()
    ours = decode_raw(output[0], Thresholds(conf, 0.7, 300, agnostic, classes), classes=80)
    np.testing.assert_array_equal(np.column_stack(ours), theirs)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("conf", [0.01, 0.25])
def test_rotated_raw_equals_ultralytics(agnostic: bool, conf: float) -> None:
    import torch
    from ultralytics.utils.nms import non_max_suppression

    rng = np.random.default_rng(1)
    boxes = rng.uniform([0, 0, 5, 5], [200, 200, 90, 90], (800, 4)).T
    angles = rng.uniform(-np.pi / 4, 3 * np.pi / 4, (1, 800))
    output = np.concatenate([boxes, rng.beta(0.2, 1, (3, 800)), angles])[None].astype(np.float32)
    theirs = non_max_suppression(
        torch.from_numpy(output.copy()), conf, 0.5, None, agnostic, max_det=40, nc=3, rotated=True
    )[0].numpy()
    ours = decode_raw(output[0], Thresholds(conf, 0.5, 40, agnostic), classes=3, rotated=True)
    assert len(theirs) == 40
    np.testing.assert_array_equal(np.column_stack(ours), theirs)


def test_queries_by_hand() -> None:
    rows = np.array([[0.5, 0.25, 0.2, 0.1, 0.9, 1], [0.1, 0.1, 0.1, 0.1, 0.2, 0]], np.float32)
    boxes, scores, classes, _ = decode_queries(rows, Thresholds())
    np.testing.assert_allclose(boxes, [[0.4, 0.2, 0.6, 0.3]], rtol=1e-6)
    assert (scores.tolist(), classes.tolist()) == (pytest.approx([0.9]), [1])


def test_only_the_best_candidates_enter_nms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ima_yolo.export.postprocess.MAX_CANDIDATES", 3)
    scores = decode_raw(RAW[0], Thresholds(conf=0.2, iou=1.0), classes=2)[1]
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.7])


@pytest.mark.parametrize(
    "changes",
    [
        {"conf": 1.5},
        {"conf": "0.5"},
        {"iou": -0.1},
        {"iou": True},
        {"conf": float("nan")},
        {"max_det": 0},
        {"max_det": 2.0},
        {"agnostic_nms": 1},
        {"classes": [-1]},
        {"classes": "3"},
        {"classes": ["disc"]},
    ],
)
def test_thresholds_out_of_range_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(IMAError, match=f"^{next(iter(changes))}="):
        Thresholds(**changes)


@pytest.mark.parametrize("classes", [2, [0, 2], (0, 2), range(3), {0, 2}, np.array([0, 2]), [np.int64(2)]])
def test_thresholds_in_the_forms_that_users_hold(classes: object) -> None:
    thresholds = Thresholds(np.float32(0.5), 1, np.int64(7), classes=classes)
    assert 2 in thresholds.classes
    assert {type(index) for index in thresholds.classes} == {int}


@pytest.mark.parametrize("classes", [True, [True], "02", [-1], [0.5], np.array([0.5])])
def test_classes_that_are_none(classes: object) -> None:
    with pytest.raises(IMAError, match="expected class indices"):
        Thresholds(classes=classes)
