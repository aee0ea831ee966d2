"""`ima-yolo demo`: the whole line on a drawn data set. Everything it prints was trained and measured on the spot."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import LOGGER, colorstr

from ima_yolo.demo.scenes import draw_set
from ima_yolo.demo.sprites import NAMES
from ima_yolo.pictures import ground_truth_column, prediction_column, side_by_side
from ima_yolo.summary import measure_all, table
from ima_yolo.trainer import IMATrainer

TRAIN_IMAGES, VAL_IMAGES, IMGSZ = 440, 160, 128
TEACHER, STUDENT = "yolo26s.yaml", "yolo26n.yaml"
TEACHER_EPOCHS, STUDENT_EPOCHS = 6, 4
PICTURES = 4
# A few hundred steps from scratch: small batches, no warm-up, and hardly any augmentation.
RECIPE: dict[str, Any] = {
    "batch": 8,
    "nbs": 8,
    "optimizer": "AdamW",
    "lr0": 0.002,
    "lrf": 0.05,
    "cos_lr": True,
    "warmup_epochs": 0,
    "warmup_bias_lr": 0.0,
    "mosaic": 0.0,
    "close_mosaic": 0,
    "erasing": 0.0,
    "scale": 0.1,
    "translate": 0.05,
    "hsv_h": 0.0,
    "hsv_s": 0.2,
    "hsv_v": 0.2,
    "amp": False,
    "val": False,
    "plots": False,
    "cache": "ram",
    "workers": 0,
}


@dataclass(frozen=True)
class Stage:
    """Where the demo works, and what all its trainings share."""

    folder: Path
    data: Path
    seed: int
    device: str | None

    def training(self, name: str, epochs: int) -> dict[str, Any]:
        """Ultralytics' keys of one training: the same budget, data order and augmentation for every student."""
        return {
            "data": str(self.data),
            "epochs": epochs,
            "imgsz": IMGSZ,
            **RECIPE,
            "seed": self.seed,
            "device": self.device,
            "project": str(self.folder / "runs"),
            "name": name,
            "exist_ok": True,
        }


def run(folder: Path, seed: int = 0, device: str | None = None) -> dict[str, Path]:
    """Draw a data set, train a teacher, a plain and a distilled student, export, run, and print what came out.

    Args:
        folder: Where everything is written.
        seed: Of the drawn images and of every training.
        device: As in `yolo train`; None for Ultralytics' choice.

    Returns:
        The checkpoints and the ONNX file by name.
    """
    start = time.monotonic()
    data = draw_set(folder / "data", TRAIN_IMAGES, VAL_IMAGES, IMGSZ, seed)
    stage = Stage(folder, data, seed, device)
    _say(f"drew {TRAIN_IMAGES} training and {VAL_IMAGES} validation images of {IMGSZ} px: {data.parent}")
    models = _train(stage)
    models["distilled, ONNX"] = _export(stage, models["distilled"])
    _report(stage, models)
    _say(f"done in {time.monotonic() - start:.0f} s")
    return models


def _say(text: str) -> None:
    LOGGER.info(f"{colorstr('bold', 'demo:')} {text}")


def _train(stage: Stage) -> dict[str, Path]:
    """Train teacher, plain and distilled student and return their best checkpoints.

    A small network at this size keeps one core busy and no more, so the plain student trains beside the teacher.
    """
    log = stage.folder / "plain.log"
    with ProcessPoolExecutor(1, get_context("spawn"), _print_to, (str(log),)) as beside:
        _say(f"1/3 plain student: {STUDENT}, {STUDENT_EPOCHS} epochs, in a process of its own ({log})")
        keys = {"model": STUDENT, **stage.training("plain", STUDENT_EPOCHS)}
        plain = beside.submit(_trained, DetectionTrainer, keys)
        _say(f"2/3 teacher: {TEACHER}, {TEACHER_EPOCHS} epochs")
        teacher = _trained(DetectionTrainer, {"model": TEACHER, **stage.training("teacher", TEACHER_EPOCHS)})
        _say(f"3/3 distilled student: {STUDENT}, {STUDENT_EPOCHS} epochs, the seed of the plain one")
        keys = {"model": STUDENT, "teacher": str(teacher), **stage.training("distilled", STUDENT_EPOCHS)}
        distilled = _trained(IMATrainer, keys)
        return {"teacher": teacher, "plain": plain.result(), "distilled": distilled}


def _trained(trainer_class: type[DetectionTrainer], options: dict[str, Any]) -> Path:
    """Train and return the best checkpoint."""
    trainer = trainer_class(overrides=options)
    trainer.train()
    return Path(trainer.best)


def _print_to(log: str) -> None:
    """Send all that this process prints to a file."""
    with Path(log).open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _export(stage: Stage, student: Path) -> Path:
    """Export the student, and run the file over the validation images without torch's help."""
    from ima_yolo.export.onnx import export_onnx
    from ima_yolo.export.predict import run

    images = stage.data.parent / "images" / "val"
    report = export_onnx(student, images=sorted(images.iterdir())[:8], imgsz=IMGSZ)
    run(report.path, images, project=stage.folder / "runs", name="predict", exist_ok=True, save_txt=True)
    return Path(report.path)


def _report(stage: Stage, models: dict[str, Path]) -> None:
    """Measure every model on the validation images, print the table and save the picture."""
    device = stage.device or "cpu"
    rows = measure_all(models, stage.data, IMGSZ, device=device, workers=0)
    _say(f"on {VAL_IMAGES} validation images, seed {stage.seed}\n\n{table(rows)}\n")
    _say("one seed and a few hundred steps: points between the students can be chance; `ima-yolo compare` tells")
    images = sorted((stage.data.parent / "images" / "val").iterdir())[:PICTURES]
    columns = [ground_truth_column(images, {"names": dict(enumerate(NAMES))})]
    columns += [prediction_column(name, path, images, IMGSZ, device=device) for name, path in models.items()]
    _say(f"picture   {side_by_side(images, columns, stage.folder / 'side_by_side.png')}")
    _say(f"student   {models['distilled']}")
    _say(f"ONNX file {models['distilled, ONNX']}")
