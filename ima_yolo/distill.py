"""The distiller: shows a batch to the teacher, compares the maps, weighs the term, and watches that it teaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER

from ima_yolo.config import Settings
from ima_yolo.criterion import Criterion, HeadTerms, build_criterion, build_head_terms, build_weight
from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions, common_strides
from ima_yolo.masks import Regions
from ima_yolo.teachers import Teacher, TeacherOutput
from ima_yolo.weighting import AutoWeight, FixedWeight, Watch, schedule

TERM = "ima_loss"  # contains "loss", so that it is plotted, and fits the 11 characters of the progress bar


class Distiller(nn.Module):
    """Turns a batch and the student's maps into a weighted distillation term.

    The teacher is held beside the module tree: its weights are neither trained nor saved.

    Args:
        teacher: Frozen teacher on the training device.
        criterion: The feature losses.
        weight: Fixed or automatic.
        rng: Source of the masks.
        kind: Schedule of the weight, see `ima_yolo.weighting.schedule`.
        off: Share of the training at its end without distillation.
        confidence: Whether the losses need the teacher's confidence.
        teacher_boxes: Whether the objects are the teacher's detections instead of the labels.
        head: Terms on what the heads say, or None.
    """

    def __init__(
        self,
        teacher: Teacher,
        criterion: Criterion,
        weight: AutoWeight | FixedWeight,
        rng: torch.Generator,
        kind: str = "constant",
        off: float = 0.0,
        confidence: bool = False,
        teacher_boxes: bool = False,
        head: HeadTerms | None = None,
    ) -> None:
        """Keep the parts; distillation is fully on until told otherwise."""
        super().__init__()
        self.teacher = teacher
        self.criterion = criterion
        self.weight = weight
        self._rng = rng
        self._kind, self._off = kind, off
        self._confidence, self._teacher_boxes = confidence, teacher_boxes
        self._factor = schedule(kind, 0.0, off)
        self._head = head
        self._watches = {name: Watch(name) for name in self._names}

    def set_progress(self, progress: float) -> None:
        """Set the schedule to a share of the training that is done, in [0, 1]."""
        factor = schedule(self._kind, progress, self._off)
        if factor == 0.0 < self._factor:
            LOGGER.info("Distillation is off from this epoch on")
        self._factor = factor
        for watch in self._watches.values():
            watch.restart()

    @property
    def effective_weight(self) -> float:
        """Weight times schedule, as last used."""
        return self._factor * (self.weight.value or 0.0)

    def forward(
        self, batch: dict[str, Any], student: Features, task: Tensor, predicted: Callable[[], Predictions]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted terms of a batch.

        Args:
            batch: Ultralytics' batch: img (B, 3, H, W) in [0, 1], bboxes (R, 4) centre and size as shares of the
                image, batch_idx (R,).
            student: The student's neck maps of this batch.
            task: The student's own loss, scalar, in the graph of the maps.
            predicted: Gives what the student's head says of this batch.

        Returns:
            The sum to add, scalar, and its terms detached, by name. All are 0 while distillation is off; the teacher is
            not run then.
        """
        terms = {} if self._factor == 0.0 or not self._is_weighted else self._terms(batch, student, task, predicted)
        nothing = task.detach().new_zeros(())
        total = sum(terms.values(), start=nothing)
        return total, {name: terms.get(name, nothing).detach() for name in self._names}

    @property
    def _is_weighted(self) -> bool:
        return self.weight.value != 0.0 or self._head is not None

    @property
    def _names(self) -> tuple[str, ...]:
        return (TERM, *(self._head.names if self._head else ()))

    def _terms(
        self, batch: dict[str, Any], student: Features, task: Tensor, predicted: Callable[[], Predictions]
    ) -> dict[str, Tensor]:
        seen = self.teacher(batch["img"], self._confidence, self._teacher_boxes, self._head is not None)
        terms: dict[str, Tensor] = {}
        raw: dict[str, Tensor] = {}  # without the automatic weight, which moves a term that itself stands still
        if self.weight.value != 0.0:
            raw[TERM] = term = self.criterion(student, seen.features, regions_of(batch, seen))
            terms[TERM] = term * (self.weight(task, term, student.maps) * self._factor)
        if self._head is not None and seen.predictions is not None:
            said = self._head(predicted(), seen.predictions)
            terms.update({name: term * self._factor for name, term in said.items()})
        for name, watched in {**terms, **raw}.items():
            if warning := self._watches[name].see(watched, student.maps):
                LOGGER.warning(warning)
        return terms

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load` goes on."""
        adapters = {name: value.detach().cpu().clone() for name, value in self.criterion.state_dict().items()}
        return {"adapters": adapters, "weight": self.weight.state(), "rng": self._rng.get_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        try:
            self.criterion.load_state_dict(state["adapters"])
        except RuntimeError as error:
            raise IMAError(
                f"the run's adapters do not fit {self.teacher.name} or this version: resume with the teacher and the "
                "version that it was started with"
            ) from error
        self.weight.load(state["weight"])
        if state["rng"].shape == self._rng.get_state().shape:
            self._rng.set_state(state["rng"].cpu())
        else:
            LOGGER.warning("The run goes on on another kind of device, whose random masks differ")


def regions_of(batch: dict[str, Any], seen: TeacherOutput) -> Regions:
    """Objects of a batch in pixels: the teacher's where it was asked for them, else the labels."""
    if seen.boxes is not None:
        return Regions(seen.boxes, seen.confidence or {})
    height, width = batch["img"].shape[2:]
    centre, size = batch["bboxes"][:, :2], batch["bboxes"][:, 2:4]
    corners = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    pixels = corners * corners.new_tensor([width, height, width, height])
    boxes = torch.cat([batch["batch_idx"].view(-1, 1).to(pixels), pixels], dim=1)
    return Regions(boxes, seen.confidence or {})


def build_distiller(
    settings: Settings,
    teacher: Teacher,
    student: Features,
    device: torch.device,
    seed: int,
    rank: int = 0,
    names: Mapping[int, str] | None = None,
    gains: Mapping[str, float] | None = None,
) -> Distiller:
    """Match a teacher with a student and build what the settings ask for.

    Args:
        settings: What the user chose.
        teacher: Frozen teacher.
        student: Probe of the student, for its strides and channels.
        device: Training device.
        seed: Seed of adapters and masks.
        rank: Index of this process; each draws masks of its own.
        names: The data's class names by index; needed for terms on the heads.
        gains: Gains of the task's own losses, "cls" and "box"; needed for terms on the heads.

    Raises:
        IMAError: If the two share no level, or not one that was asked for.
    """
    strides = common_strides(student.strides, teacher.strides, settings.ima_levels)
    dropped = sorted((set(student.strides) | set(teacher.strides)) - set(strides))
    if dropped and settings.ima_levels is None:
        LOGGER.info(f"Distilling strides {list(strides)}; {dropped} are not in both models and are left out")
    rng = torch.Generator(device=device)
    rng.manual_seed(seed + rank)
    student_channels = dict(zip(student.strides, student.channels, strict=True))
    teacher_channels = dict(zip(teacher.strides, teacher.channels, strict=True))
    criterion = build_criterion(settings, strides, student_channels, teacher_channels, rng, seed)
    return Distiller(
        teacher.to(device),
        criterion.to(device),
        build_weight(settings),
        rng,
        kind=settings.ima_schedule,
        off=settings.ima_off,
        confidence=settings.needs_confidence,
        teacher_boxes=settings.needs_teacher_boxes,
        head=build_head_terms(settings, teacher, names or {}, gains or {}),
    )
