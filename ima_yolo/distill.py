"""The distiller: shows a batch to the teacher, compares the maps, weighs the term, and watches that it teaches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER

from ima_yolo.config import Settings
from ima_yolo.criterion import Criterion, build_criterion, build_weight
from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions, common_strides
from ima_yolo.losses import box_loss, score_loss
from ima_yolo.masks import Regions
from ima_yolo.teachers import Teacher, TeacherOutput
from ima_yolo.weighting import AutoWeight, FixedWeight, Watch, schedule

# Names contain "loss", so that they are plotted, and fit the 11 characters of the progress bar.
TERM, SCORE_TERM, BOX_TERM = "ima_loss", "kd_cls_loss", "kd_box_loss"


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
        self._watch = Watch(TERM)

    def set_progress(self, progress: float) -> None:
        """Set the schedule to a share of the training that is done, in [0, 1]."""
        factor = schedule(self._kind, progress, self._off)
        if factor == 0.0 < self._factor:
            LOGGER.info("Distillation is off from this epoch on")
        self._factor = factor
        self._watch.restart()

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
        terms = {}
        if self.weight.value != 0.0:
            term = self.criterion(student, seen.features, _regions(batch, seen))
            if warning := self._watch.see(term, student.maps):
                LOGGER.warning(warning)
            terms[TERM] = term * (self.weight(task, term, student.maps) * self._factor)
        if self._head is not None and seen.predictions is not None:
            said = self._head(predicted(), seen.predictions)
            terms.update({name: term * self._factor for name, term in said.items()})
        return terms

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load` goes on."""
        adapters = {name: value.detach().cpu().clone() for name, value in self.criterion.state_dict().items()}
        return {"adapters": adapters, "weight": self.weight.state(), "rng": self._rng.get_state()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.criterion.load_state_dict(state["adapters"])
        self.weight.load(state["weight"])
        self._rng.set_state(state["rng"].cpu())


class HeadTerms:
    """Terms on what the heads of student and teacher say of every cell.

    Args:
        score_weight: Weight of the class scores; 0 leaves them out.
        box_weight: Weight of the boxes; 0 leaves them out.
        classes: Index in the student and in the teacher of each class that both know.
    """

    def __init__(self, score_weight: float, box_weight: float, classes: Sequence[tuple[int, int]]) -> None:
        """Keep weights and classes."""
        self.weights = {SCORE_TERM: score_weight, BOX_TERM: box_weight}
        self.names = tuple(name for name, weight in self.weights.items() if weight > 0)
        self._student, self._teacher = (list(indices) for indices in zip(*classes, strict=True))

    def __call__(self, student: Predictions, teacher: Predictions) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            student: With gradient.
            teacher: Of the same cells, without.

        Raises:
            IMAError: If the two heads have different cells.
        """
        if student.boxes.shape != teacher.boxes.shape:
            raise IMAError("the heads of student and teacher have different cells; use ima_cls=0 ima_box=0")
        student_scores, teacher_scores = student.scores[..., self._student], teacher.scores[..., self._teacher]
        terms = {}
        if SCORE_TERM in self.names:
            terms[SCORE_TERM] = score_loss(student_scores, teacher_scores) * self.weights[SCORE_TERM]
        if BOX_TERM in self.names:
            confidence = teacher_scores.sigmoid().amax(dim=2)
            terms[BOX_TERM] = box_loss(student.boxes, teacher.boxes, confidence) * self.weights[BOX_TERM]
        return terms


def _head_terms(
    settings: Settings, teacher: Teacher, names: Mapping[int, str], gains: Mapping[str, float]
) -> HeadTerms | None:
    """Build the head's terms, with the gains of the task's own losses as their unit."""
    if not settings.needs_predictions:
        return None
    known = {name: index for index, name in (teacher.class_names or {}).items()}
    classes = [(index, known[name]) for index, name in names.items() if name in known]
    if not classes:
        raise IMAError(f"ima_cls, ima_box: {teacher.name} knows none of the data's classes; use ima_cls=0 ima_box=0")
    return HeadTerms(settings.ima_cls * gains["cls"], settings.ima_box * gains["box"], classes)


def _regions(batch: dict[str, Any], seen: TeacherOutput) -> Regions:
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
        head=_head_terms(settings, teacher, names or {}, gains or {}),
    )
