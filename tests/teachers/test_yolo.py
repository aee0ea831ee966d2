from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics import YOLO

from ima_yolo.errors import IMAError
from ima_yolo.host import load_model
from ima_yolo.teachers.yolo import YOLOTeacher


def image(size: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def confident(path: Path, tmp_path: Path) -> Path:
    """A copy whose head is sure of class 1 everywhere."""
    yolo = YOLO(path)
    for branch in (yolo.model.model[-1].cv3, yolo.model.model[-1].one2one_cv3):
        for level in branch:
            nn.init.zeros_(level[-1].weight)
            level[-1].bias.data = torch.tensor([-9.0, 2.0, -9.0])
    yolo.save(tmp_path / "confident.pt")
    return tmp_path / "confident.pt"


def test_the_teacher_gives_the_maps_that_feed_its_head(tiny_checkpoint: Callable[..., Path]) -> None:
    path = tiny_checkpoint("yolo26n.yaml")
    teacher = YOLOTeacher(path)
    features = teacher(image()).features
    plain, _ = load_model(path, "teacher")
    with torch.no_grad():
        expected = plain(image())[1]["one2many"]["feats"]
    assert features.strides == teacher.strides == (8, 16, 32)
    assert features.channels == teacher.channels
    for level, other in zip(features.maps, expected, strict=True):
        assert torch.allclose(level, other, atol=1e-4), "folding the batch norms must not change the maps"
        assert not level.requires_grad


def test_images_of_any_size_give_maps_of_the_student_s_size(tiny_checkpoint: Callable[..., Path]) -> None:
    teacher = YOLOTeacher(tiny_checkpoint("yolov8n-p6.yaml"))
    output = teacher(torch.rand(1, 3, 96, 160), confidence=True, boxes=True)
    sizes = [(12, 20), (6, 10), (3, 5), (2, 3)]
    assert [tuple(level.shape[2:]) for level in output.features.maps] == sizes
    assert [tuple(level.shape) for level in output.confidence.values()] == [(1, 1, *size) for size in sizes]


def test_the_teacher_is_frozen_and_its_head_rests(tiny_checkpoint: Callable[..., Path], monkeypatch) -> None:
    teacher = YOLOTeacher(tiny_checkpoint("yolo26n.yaml"))
    assert not any(parameter.requires_grad for parameter in teacher._model.parameters())
    assert not any(module.training for module in teacher._model.modules())
    monkeypatch.setattr(type(teacher._head), "forward", lambda *_: pytest.fail("the head ran"))
    teacher(image())


def test_confidence_is_the_highest_class_score_of_each_cell(tiny_checkpoint, tmp_path: Path) -> None:
    output = YOLOTeacher(confident(tiny_checkpoint("yolo26n.yaml"), tmp_path))(image(), confidence=True)
    assert {stride: tuple(level.shape) for stride, level in output.confidence.items()} == {
        8: (2, 1, 8, 8),
        16: (2, 1, 4, 4),
        32: (2, 1, 2, 2),
    }
    for level in output.confidence.values():
        assert torch.allclose(level, torch.full_like(level, torch.sigmoid(torch.tensor(2.0)).item()), atol=1e-5)
    assert output.boxes is None


def test_boxes_are_detections_in_pixels_of_each_image(tiny_checkpoint, tmp_path: Path) -> None:
    boxes = YOLOTeacher(confident(tiny_checkpoint("yolo26n.yaml"), tmp_path))(image(), boxes=True).boxes
    assert set(boxes[:, 0].tolist()) == {0.0, 1.0}
    assert (boxes[:, 3] > boxes[:, 1]).all()
    assert boxes[:, 1:].max() > 8, "in pixels, not in shares of the image"


def test_a_teacher_that_is_sure_of_nothing_gives_no_box(tiny_checkpoint) -> None:
    assert YOLOTeacher(tiny_checkpoint("yolo26n.yaml"), conf=0.9)(image(), boxes=True).boxes.shape == (0, 5)


def test_the_digest_depends_on_every_weight(tiny_checkpoint) -> None:
    teacher, other = YOLOTeacher(tiny_checkpoint("yolo26n.yaml")), YOLOTeacher(tiny_checkpoint("yolo26n.yaml"))
    assert teacher.digest() == other.digest()
    with torch.no_grad():
        next(iter(other._model.parameters()))[0, 0, 0, 0] += 1e-3
    assert teacher.digest() != other.digest()


def test_a_classifier_cannot_teach(tmp_path: Path) -> None:
    YOLO("yolo26n-cls.yaml").save(tmp_path / "cls.pt")
    with pytest.raises(IMAError, match="classification model has no feature pyramid"):
        YOLOTeacher(tmp_path / "cls.pt")


def test_a_teacher_that_says_it_is_end_to_end_still_scores_every_cell(tiny_checkpoint, tmp_path: Path) -> None:
    yolo = YOLO(tiny_checkpoint("yolo26n.yaml"))
    yolo.model.end2end = True
    yolo.save(tmp_path / "end2end.pt")
    output = YOLOTeacher(tmp_path / "end2end.pt")(image(), confidence=True)
    assert output.confidence[8].shape == (2, 1, 8, 8)
