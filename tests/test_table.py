"""The README's table of teachers and tasks: in each cell, a step in which the teacher pulls on the student's neck."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ima_yolo.assembly import build_distiller
from ima_yolo.config import Settings
from ima_yolo.features import Features, tap
from ima_yolo.host import neck, probe
from ima_yolo.students import load_student
from ima_yolo.teachers import Teacher
from ima_yolo.teachers.load import load_teacher
from ima_yolo.teachers.view import fit

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
STUDENTS = {
    "detect": "yolo26n.yaml",
    "RT-DETR": "yolov8n-rtdetr.yaml",
    "segment": "yolo26n-seg.yaml",
    "semantic": "yolo26n-sem.yaml",
    "pose": "yolo26n-pose.yaml",
    "obb": "yolo26n-obb.yaml",
}
ROWS = {
    "YOLO detector": ["yolo26s.yaml"],
    "RT-DETR": ["yolov8n-rtdetr.yaml"],
    "YOLO segment, semantic, pose, obb": [f"yolo26n-{task}.yaml" for task in ("seg", "sem", "pose", "obb")],
    "torchvision RetinaNet, FCOS, Faster R-CNN, Mask R-CNN": [
        f"torchvision:{name}_resnet50_fpn" for name in ("retinanet", "fcos", "fasterrcnn", "maskrcnn")
    ],
    "torchvision DeepLabV3, FCN": ["torchvision:deeplabv3_resnet101", "torchvision:fcn_resnet50"],
    "timm CNN, ViT": ["timm:resnet18", "timm:deit_tiny_patch16_224"],
    "a function": ["my_teachers:pool"],
}
MINE = """
import torch
from torch import nn
from ima_yolo.teachers.module import ModuleTeacher

class Pool(nn.Module):
    def forward(self, images):
        return [nn.functional.avg_pool2d(images, stride) for stride in (8, 16, 32)]

def pool():
    return ModuleTeacher("pool", Pool())
"""


@functools.cache
def student_of(config: str) -> tuple[Any, Features]:
    """An untrained student in training mode, and its levels; built once for all teachers."""
    student, _ = load_student(config)
    return student.train(), probe(student)


@pytest.fixture
def teacher_of(lively: Callable[[Path, Path], Path], tmp_path: Path) -> Callable[[str], Teacher]:
    def make(name: str) -> Teacher:
        from ultralytics import RTDETR, YOLO

        if name.startswith("timm"):
            pytest.importorskip("timm", reason="the extra `timm` is not installed")
        if name.startswith("my_teachers"):
            (tmp_path / "my_teachers.py").write_text(MINE)
        if not name.endswith(".yaml"):
            return load_teacher(name)
        path = tmp_path / f"{Path(name).stem}.pt"
        (RTDETR if "rtdetr" in name else YOLO)(name).save(path)
        return load_teacher(str(path if "rtdetr" in name else lively(path, path)))

    return make


def test_the_table_claims_what_is_tested() -> None:
    heading, _, *rows = re.findall(r"^\|.*\|$", README[README.index("| Teacher | detect") :], re.MULTILINE)[:9]
    assert [cell.strip() for cell in heading.strip("|").split("|")][1:] == list(STUDENTS)
    claimed = {row.strip("|").split("|")[0].strip(): row.count("+") for row in rows}
    assert claimed == dict.fromkeys(ROWS, len(STUDENTS))


def labels(task: str) -> dict[str, torch.Tensor]:
    """Objects of two images of 64 x 96 px as a training of the task has them: a mask, turned boxes, or boxes."""
    if task == "semantic":
        classes = torch.full((2, 64, 96), 3)
        classes[:, 8:40, 16:56] = 0
        classes[1, 40:, 60:] = 255  # not known
        return {"semantic_mask": classes}
    boxes = torch.tensor([[0.4, 0.4, 0.4, 0.5], [0.5, 0.5, 0.6, 0.6], [0.7, 0.3, 0.2, 0.3]])
    turned = torch.cat([boxes, torch.full((3, 1), 0.3)], dim=1)
    index = torch.tensor([0.0, 1.0, 1.0])
    return {"bboxes": turned if task == "obb" else boxes, "cls": torch.zeros(3, 1), "batch_idx": index}


@pytest.mark.parametrize("name", [name for names in ROWS.values() for name in names])
def test_a_teacher_pulls_on_the_student_of_every_task(name: str, teacher_of: Callable[[str], Teacher]) -> None:
    teacher = teacher_of(name)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    for task, config in STUDENTS.items():
        student, own = student_of(config)
        view = fit(teacher, own.strides)
        settings = Settings(teacher="any", ima_weight=1.0).for_task("detect" if task == "RT-DETR" else task)
        distiller = build_distiller(settings, [view], own, torch.device("cpu"), seed=0)
        head, levels = neck(student)
        with tap(head, levels, stop=True) as caught:
            student(images)
        for level in caught.maps:
            level.retain_grad()
        seen = Features.of_image(caught.maps, 64)
        batch = {"img": images, **labels(task)}
        total, _ = distiller(batch, seen, sum(level.mean() for level in caught.maps), lambda: None)
        total.backward()
        assert view.strides, task
        instances = {loss.instance for loss in distiller.criterion.members[0].levels.values()}
        assert instances == {"region" if task == "semantic" else "image"}, task
        for stride in view.strides:
            pull = seen.at(stride).grad
            assert pull is not None, (task, stride)
            assert pull.isfinite().all(), (task, stride)
            assert pull.abs().sum() > 0, (task, stride)
