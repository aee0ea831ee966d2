"""Training steps to be timed: the same student, batch, optimizer and average, with and without a teacher."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics import RTDETR, YOLO
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules import head as heads
from ultralytics.nn.tasks import BaseModel, DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import ModelEMA, autocast

from ima_yolo import host
from ima_yolo.assembly import build_distiller
from ima_yolo.attach import attach
from ima_yolo.config import validate
from ima_yolo.errors import IMAError
from ima_yolo.pairing import choose_heads, fit_teachers, load_teachers
from ima_yolo.speed.case import Case, head_of
from ima_yolo.speed.clock import Clock
from ima_yolo.speed.periodic import in_every_step
from ima_yolo.teachers.load import choose_runtime

BOXES = 8  # objects an image
MAX_NORM = 10.0  # Ultralytics clips the gradient to it
INIT_SCALE = 128.0  # of gradients in half precision; from PyTorch's 65536 on the first steps overflow, and are skipped
MOST_SKIPPED = 20  # steps


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
        (RTDETR if issubclass(head_of(name)[0], heads.RTDETRDecoder) else YOLO)(name).save(path)
    return path


class Step:
    """One training step: forward, loss, backward, clipping, optimizer and averaged model, as in a training.

    Ours does in each step what a training does every few: it measures the automatic weight (every 10) and the gate
    (every 5) and lets the watch give its verdict (once in an epoch). All of it is clocked inside the step, `surplus` is
    what does not count, and each counts by its share: seconds / steps between two times. So a round has one step of
    ours, and the peak of memory is that of a step which measures. The check of the teacher's maps, once in 100 looks,
    is left out. On a GPU the clock's waits make ours longer, by a few gaps between kernels, than it is.

    Args:
        case: Models and sizes.
        arm: One of `ima_yolo.speed.case.ARMS`.
        device: Where it runs.
        teacher: Checkpoint of the teacher.

    Attributes:
        periods: Steps between two times of what is done periodically, by name; empty but for ours.
        history: Seconds of what was clocked, one dict a step.
    """

    def __init__(self, case: Case, arm: str, device: torch.device, teacher: Path) -> None:
        """Build the student and what the arm hangs on it."""
        self.name = f"{case.name}: the step called '{arm}'"
        self.device = device
        self.batch = make_batch(case, device)
        self.clock = Clock(device)
        self.periods: dict[str, int] = {}
        self.history: list[dict[str, float]] = []
        student = _student(case, device)
        self.model: nn.Module = student
        if arm == "builtin":
            self.model = DistillationModel(teacher, student).to(device)
        elif arm == "ours":
            distiller = make_distiller(case, student, device, teacher)
            self.periods = in_every_step(distiller, self.clock)
            attach(student, distiller)
        self.model.train()
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-5)
        self.average = ModelEMA(self.model)
        self.half = in_half(device)
        self.scaler = torch.amp.GradScaler(device.type, init_scale=INIT_SCALE, enabled=self.half)
        self._scale = self.scaler.get_scale()

    def __call__(self) -> None:
        """Do it."""
        self.clock.seconds = {}
        loss = self.forward()
        self.backward(loss)
        self.optimize()
        self.history.append(self.clock.seconds)

    @property
    def surplus(self) -> float:
        """Seconds of the last step that do not count: of periodic work, what is beyond its share."""
        done = self.history[-1]
        return sum(done.get(name, 0.0) * (1 - 1 / every) for name, every in self.periods.items())

    @property
    def has_skipped(self) -> bool:
        """Whether gradients overflowed since the warm-up, so that the optimizer skipped a step and took less time."""
        return self.scaler.get_scale() < self._scale

    def forward(self) -> Tensor:
        """Return the loss of the batch, a scalar."""
        with autocast(self.half, device=self.device.type):
            loss, _ = self.model(self.batch)
        total: Tensor = loss.sum()
        return total

    def backward(self, loss: Tensor) -> None:
        """Find the gradients, scaled in half precision."""
        self.scaler.scale(loss).backward()

    def optimize(self) -> None:
        """Clip, change the weights, and let their average follow."""
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), max_norm=MAX_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.average.update(self.model)

    def warm_up(self) -> None:
        """Step until the optimizer has stepped, and keeps its state: in half precision the first may overflow.

        Raises:
            IMAError: If it never does.
        """
        for _ in range(MOST_SKIPPED):
            self()
            if self.optimizer.state:
                self._scale = self.scaler.get_scale()
                return
        raise IMAError(f"{self.name} trains nothing: its gradients overflowed {MOST_SKIPPED} times in a row")


def in_half(device: torch.device) -> bool:
    """Whether steps on a device run in mixed precision, as a training's do by default."""
    return device.type == "cuda"


def make_distiller(case: Case, student: BaseModel, device: torch.device, teacher: Path) -> Any:
    """Build our distiller for a student, on the device."""
    settings = validate({"teacher": str(teacher), **dict(case.settings)})
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
    """The teacher's forward pass up to the neck by PyTorch, in float32 on a CPU: the floor of a plain distillation.

    Our own step may go below that floor, since it may run the teacher in bfloat16 or by ONNX Runtime.
    """
    (loaded,) = load_teachers(validate({"teacher": str(teacher)}))
    loaded.to(device)
    images = make_batch(case, device)["img"]

    def run() -> None:
        with torch.no_grad(), autocast(in_half(device), device=device.type):
            loaded(images)

    return run


def teacher_as_run(step: Step) -> Callable[[], None]:
    """What the teacher costs as our step asks it: in the step's runtime, the images and the head that it asks for."""
    distiller: Any = step.model.ima

    def run() -> None:
        with torch.no_grad(), autocast(step.half, device=step.device.type):
            distiller.observe(step.batch)

    return run


def build(case: Case, device: torch.device, folder: Path | None = None) -> dict[str, Callable[[], None]]:
    """Build every action of a case: the arms, and the teacher alone, plainly and as our step runs it."""
    with tempfile.TemporaryDirectory() as scratch:
        teacher = teacher_file(case.teacher, folder or Path(scratch))
        steps = {arm: Step(case, arm, device, teacher) for arm in case.arms}
        if in_half(device):  # else the first round, which is not counted, is enough
            for step in steps.values():
                step.warm_up()
        looks = {"teacher": teacher_forward(case, device, teacher), "teacher as run": teacher_as_run(steps["ours"])}
        return {**steps, **looks}


def _student(case: Case, device: torch.device) -> BaseModel:
    torch.manual_seed(0)
    if case.student.endswith(".pt"):
        student, _ = host.load_model(case.student, "student")
        student.requires_grad_(True)
    else:
        student = DetectionModel(case.student, nc=len(case.class_names()), verbose=False)
    student.args = SimpleNamespace(**{**DEFAULT_CFG_DICT, "imgsz": case.imgsz})
    return student.to(device)
