"""Do unlike detectors teach? RT-DETR and RetinaNet, each trained briefly on BCCD, teach a YOLO26n from random weights.

For each pair: the distillation loss of every epoch, and the linear CKA (arXiv 1905.00414) of the student's neck maps
with the teacher's on the validation images, beside that of the same student trained without a teacher. A run of minutes
on a CPU: it shows that the term is learnt and that features come together, not that accuracy rises.

Launch: python benchmarks/heterogeneous.py ../shared/data/bccd out --imgsz 128 --teacher-epochs 10 --epochs 10
"""

from __future__ import annotations

import argparse
import csv
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from copied import copied
from torchvision.models import get_model
from ultralytics import RTDETR
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, build_yolo_dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.detect import DetectionTrainer

from ima_yolo import IMATrainer
from ima_yolo.files import write_json
from ima_yolo.host import load_model, probe
from ima_yolo.ranking import student_maps, validation_images
from ima_yolo.similarity import cells, linear_cka
from ima_yolo.teachers.load import load_teacher
from ima_yolo.teachers.view import fit

STUDENT = "yolo26n.yaml"
RTDETR_TEACHER = "yolov8s-rtdetr.yaml"
RETINANET = "retinanet_resnet50_fpn"
CLASSES = 3
WEIGHT = 1  # of the feature term: the default keeps it small beside the task, and its pull is what is looked at


def main() -> None:
    """Train the teachers, the students and the control, and write what was found."""
    options = _options()
    output = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    data = copied(options.data, output)
    common = {"data": str(data), "imgsz": options.imgsz, "batch": options.batch, "workers": 0, "plots": False}
    common |= {"optimizer": "AdamW", "lr0": 0.001, "project": str(output), "exist_ok": True, "seed": options.seed}
    teachers = {
        "RT-DETR": (_train_rtdetr(output, common, options.teacher_epochs), None),
        "RetinaNet": (f"torchvision:{RETINANET}", _train_retinanet(data, output, options)),
    }
    images = validation_images(data, options.imgsz, limit=48)
    student = {**common, "model": STUDENT, "epochs": options.epochs, "val": False}
    plain = DetectionTrainer(overrides={**student, "name": "plain"})
    plain.train()
    found: dict[str, Any] = {}
    for name, (teacher, weights) in teachers.items():
        more = {"teacher": teacher, "name": f"from-{name}", "ima_weight": WEIGHT}
        trainer = IMATrainer(overrides={**student, **more, **({"ima_teacher_weights": weights} if weights else {})})
        trainer.train()
        with trainer.csv.open() as file:
            losses = [float(row["train/ima_loss"]) for row in csv.DictReader(file)]
        alike = {
            kind: _similarity(teacher, weights, path, images)
            for kind, path in (("distilled", trainer.last), ("plain", plain.last))
        }
        found[name] = {"loss": losses, "cka": alike}
        write_json(output / "report.json", {"settings": _settings(options), "teachers": found})
    print(_table(found))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the data set, which is copied")
    parser.add_argument("output", type=Path, help="folder for everything that is written")
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    given = {key: value for key, value in vars(options).items() if not isinstance(value, Path)}
    versions = {name: version(name) for name in ("torch", "ultralytics")}
    return {"student": STUDENT, "ima_weight": WEIGHT, **given, "versions": versions}


def _train_rtdetr(output: Path, common: dict[str, Any], epochs: int) -> str:
    last = output / "rtdetr" / "weights" / "last.pt"
    if not last.exists():
        RTDETR(RTDETR_TEACHER).train(**{**common, "epochs": epochs, "val": False, "name": "rtdetr", "amp": False})
    return str(last)


def _train_retinanet(data: Path, output: Path, options: argparse.Namespace) -> str:
    """Train torchvision's RetinaNet by its own losses; images are stretched to a square."""
    weights = output / "retinanet.pth"
    if weights.exists():
        return str(weights)
    torch.manual_seed(options.seed)
    size = options.imgsz
    model = get_model(
        RETINANET, weights=None, weights_backbone=None, num_classes=CLASSES, min_size=size, max_size=size
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    args = get_cfg(overrides={"imgsz": size, "mosaic": 0.0, "task": "detect"})
    known = check_det_dataset(str(data))
    loader = build_dataloader(build_yolo_dataset(args, known["train"], 8, known), 8, workers=0)
    for epoch in range(options.teacher_epochs):
        total = 0.0
        for batch in loader:
            images = batch["img"].float() / 255
            loss = sum(model(list(images), _targets(batch, size)).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        print(f"RetinaNet epoch {epoch + 1}: loss {total / len(loader):.3f}", flush=True)
    torch.save(model.state_dict(), weights)
    return str(weights)


def _targets(batch: dict[str, Any], size: int) -> list[dict[str, torch.Tensor]]:
    centre, extent = batch["bboxes"][:, :2] * size, batch["bboxes"][:, 2:] * size
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1)
    own = [batch["batch_idx"] == index for index in range(len(batch["img"]))]
    return [{"boxes": boxes[rows], "labels": batch["cls"][rows, 0].long()} for rows in own]


def _similarity(teacher: str, weights: str | None, student: Path, images: torch.Tensor) -> dict[int, float]:
    """Linear CKA of student and teacher at each level."""
    model, _ = load_model(student, "student")
    view = fit(load_teacher(teacher, weights), probe(model).strides)
    own, seen = student_maps(model, images), view(images).features
    return {stride: linear_cka(cells(own.at(stride)), cells(seen.at(stride))) for stride in view.strides}


def _table(found: dict[str, Any]) -> str:
    lines = [
        "| teacher | loss, first epoch | last epoch | CKA with the teacher, distilled (plain) |",
        "|---|---:|---:|---|",
    ]
    for name, result in found.items():
        alike = ", ".join(
            f"stride {stride}: {value:.2f} ({result['cka']['plain'][stride]:.2f})"
            for stride, value in result["cka"]["distilled"].items()
        )
        lines.append(f"| {name} | {result['loss'][0]:.3f} | {result['loss'][-1]:.3f} | {alike} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
