"""Training steps to be timed: the same student, batch, optimizer and average, with and without a teacher."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics import RTDETR, YOLO
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules import head as heads
from ultralytics.nn.tasks import BaseModel, DetectionModel, yaml_model_load
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import ModelEMA, autocast

from ima_yolo import host
from ima_yolo.attach import attach
from ima_yolo.config import validate
from ima_yolo.distill import build_distiller
from ima_yolo.pairing import choose_heads, fit_teachers, load_teachers
from ima_yolo.teachers.load import choose_runtime

ARMS = ("plain", "builtin", "ours")
CLASSES = 80  # of models that are built here; a checkpoint keeps its own
BOXES = 8  # objects an image
MAX_NORM = 10.0  # Ultralytics clips the gradient to it


@dataclass(frozen=True)
class Case:
    """A pair of models at one size.

    Attributes:
        student: Architecture (.yaml) or checkpoint (.pt).
        teacher: The same.
        imgsz: Side of the images in pixels.
        batch: Images a step.
        settings: Our keys beyond their defaults.
    """

    student: str
    teacher: str
    imgsz: int = 320
    batch: int = 8
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name in tables."""
        changed = "".join(f", {key}={value}" for key, value in self.settings)
        return f"{Path(self.student).stem} <- {Path(self.teacher).stem}, {self.imgsz} px, batch {self.batch}{changed}"

    @property
    def file_name(self) -> str:
        """Name of its file."""
        changed = "".join(f"-{key.removeprefix('ima_')}-{value}" for key, value in self.settings)
        name = f"{Path(self.student).stem}-{Path(self.teacher).stem}-{self.imgsz}-{self.batch}{changed}"
        return name.replace("/", "_")  # of a setting that is a path

    @property
    def builtin_takes(self) -> bool:
        """Whether Ultralytics' own distillation takes this teacher: it asks for its Detect head."""
        return issubclass(_head(self.teacher), heads.Detect)

    def class_names(self) -> dict[int, str]:
        """Classes of the labels, by index: those of the student's checkpoint, else of the teacher's, else numbers."""
        for role, name in (("student", self.student), ("teacher", self.teacher)):
            if name.endswith(".pt"):
                return host.class_names(host.load_model(name, role)[0])
        return {index: str(index) for index in range(CLASSES)}


def _head(name: str) -> type[nn.Module]:
    """Class of the head of an architecture or a checkpoint."""
    if name.endswith(".pt"):
        return type(host.load_model(name, "teacher")[0].model[-1])
    found: type[nn.Module] = getattr(heads, str(yaml_model_load(name)["head"][-1][2]))
    return found


def make_batch(case: Case, device: torch.device) -> dict[str, Tensor]:
    """Random images with boxes, as Ultralytics' loader hands them to the model."""
    rng = torch.Generator().manual_seed(0)
    count = case.batch * BOXES
    size = 0.1 + 0.2 * torch.rand(count, 2, generator=rng)
    batch = {
        "img": torch.rand(case.batch, 3, case.imgsz, case.imgsz, generator=rng),
        "batch_idx": torch.arange(case.batch).repeat_interleave(BOXES).float(),
        "cls": torch.randint(len(case.class_names()), (count, 1), generator=rng).float(),
        "bboxes": torch.cat([0.2 + 0.6 * torch.rand(count, 2, generator=rng), size], dim=1),
    }
    return {name: value.to(device) for name, value in batch.items()}


def teacher_file(name: str, folder: Path) -> Path:
    """Return a checkpoint: the one that is named, or an untrained one of an architecture. Weights cost no time."""
    if name.endswith(".pt"):
        return Path(name)
    path = folder / f"{Path(name).stem}.pt"
    if not path.exists():
        torch.manual_seed(1)
        (RTDETR if issubclass(_head(name), heads.RTDETRDecoder) else YOLO)(name).save(path)
    return path


class Step:
    """One training step: forward, loss, backward, clipping, optimizer and averaged model, as in a training.

    Args:
        case: Models and sizes.
        arm: One of `ARMS`.
        device: Where it runs.
        teacher: Checkpoint of the teacher.
    """

    def __init__(self, case: Case, arm: str, device: torch.device, teacher: Path) -> None:
        """Build the student and what the arm hangs on it."""
        self.device = device
        self.batch = make_batch(case, device)
        student = _student(case, device)
        self.model: nn.Module = student
        if arm == "builtin":
            self.model = DistillationModel(teacher, student).to(device)
        elif arm == "ours":
            distiller = make_distiller(case, student, device, teacher)
            attach(student, distiller)
        self.model.train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5)
        self.average = ModelEMA(self.model)
        self.half = device.type == "cuda"
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.half)

    def __call__(self) -> None:
        """Do it."""
        with autocast(self.half, device=self.device.type):
            loss, _ = self.model(self.batch)
        self.scaler.scale(loss.sum()).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=MAX_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update(self.model)


def make_distiller(case: Case, student: BaseModel, device: torch.device, teacher: Path) -> Any:
    """Build our distiller for a student, on the device."""
    # open whatever the networks know: those that are measured here may be untrained
    settings = validate({"teacher": str(teacher), "ima_gate": False, **dict(case.settings)})
    names = case.class_names()
    gains = {"cls": DEFAULT_CFG_DICT["cls"], "box": DEFAULT_CFG_DICT["box"]}
    own = host.probe(student)
    views = fit_teachers(settings, load_teachers(settings), own.strides, 3, case.imgsz)
    teachers = [view.teacher for view in views]
    choose_runtime(teachers, settings.ima_teacher_runtime, device, math.inf)
    compared = choose_heads(settings, "detect", own.strides, teachers, case.imgsz, names)
    return build_distiller(
        compared.settings, views, own, device, seed=0, names=names, gains=gains, compared=compared.compared
    )


def teacher_forward(case: Case, device: torch.device, teacher: Path) -> Callable[[], None]:
    """The teacher's forward pass up to the neck, as our step runs it: the floor of any distillation."""
    (loaded,) = load_teachers(validate({"teacher": str(teacher)}))
    loaded.to(device)
    images = make_batch(case, device)["img"]

    def run() -> None:
        with torch.no_grad(), autocast(device.type == "cuda", device=device.type):
            loaded(images)

    return run


def build(case: Case, device: torch.device, folder: Path | None = None) -> dict[str, Callable[[], None]]:
    """Build every action of a case: the arms, and the teacher's forward pass alone."""
    with tempfile.TemporaryDirectory() as scratch:
        teacher = teacher_file(case.teacher, folder or Path(scratch))
        arms = [arm for arm in ARMS if arm != "builtin" or case.builtin_takes]
        actions: dict[str, Callable[[], None]] = {arm: Step(case, arm, device, teacher) for arm in arms}
        return {**actions, "teacher": teacher_forward(case, device, teacher)}


def _student(case: Case, device: torch.device) -> BaseModel:
    torch.manual_seed(0)
    if case.student.endswith(".pt"):
        student, _ = host.load_model(case.student, "student")
        student.requires_grad_(True)
    else:
        student = DetectionModel(case.student, nc=len(case.class_names()), verbose=False)
    student.args = SimpleNamespace(**{**DEFAULT_CFG_DICT, "imgsz": case.imgsz})
    return student.to(device)
