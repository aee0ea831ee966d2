"""The distillation criterion: a feature loss for each pyramid level and terms on the heads, built from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ima_yolo.config import RATIO, Settings
from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions
from ima_yolo.losses import CWDLoss, IMALoss, L2Loss, LevelLoss, MGDLoss, PKDLoss, balanced, box_loss, score_loss
from ima_yolo.masks import Regions
from ima_yolo.merit import Gate
from ima_yolo.random_streams import repeatable
from ima_yolo.teachers import Teacher, shared_classes
from ima_yolo.weighting import AutoWeight, FixedWeight

# Names contain "loss", so that they are plotted, and fit the 11 characters of the progress bar.
SCORE_TERM, BOX_TERM = "kdcls_loss", "kdbox_loss"


class Criterion(nn.Module):
    """Mean of the feature losses of all levels in use.

    Args:
        levels: A loss for each stride.
    """

    def __init__(self, levels: Mapping[int, LevelLoss]) -> None:
        """Register the losses, so that their adapters are trained."""
        super().__init__()
        self.strides = tuple(sorted(levels))
        self.levels = nn.ModuleDict({str(stride): levels[stride] for stride in self.strides})

    def by_level(self, student: Features, teacher: Features, regions: Regions) -> Tensor:
        """Return the float32 loss of each level, (levels,), in the order of `strides`.

        Args:
            student: Maps with gradient.
            teacher: Maps without.
            regions: The objects of the batch.
        """
        losses = [
            self.levels[str(stride)](student.at(stride), teacher.at(stride), stride, regions) for stride in self.strides
        ]
        return torch.stack(losses)

    def forward(self, student: Features, teacher: Features, regions: Regions) -> Tensor:
        """Return the scalar mean over levels; the arguments are those of `by_level`."""
        return self.by_level(student, teacher, regions).mean()


class Panel(nn.Module):
    """Weighted mean of what several teachers' criteria say.

    Args:
        members: One criterion a teacher; each adapts the student in its own way.
        shares: Weight of each while all count in full; they sum to 1.
    """

    def __init__(self, members: Sequence[Criterion], shares: Sequence[float]) -> None:
        """Register the criteria, so that their adapters are trained."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.shares = tuple(shares)
        self.strides = tuple(sorted({stride for member in members for stride in member.strides}))

    def weights(self) -> Iterator[tuple[int, list[nn.Parameter]]]:
        """Strides, and the weights that are learnt at each."""
        members: Any = self.members
        for member in members:
            for stride, level in member.levels.items():
                yield int(stride), list(level.parameters())

    def forward(
        self,
        student: Features,
        teachers: Sequence[Features],
        regions: Sequence[Regions],
        note: Callable[[int, Sequence[int], Tensor], None] = lambda *_: None,
        shares: Sequence[float] | None = None,
    ) -> Tensor:
        """Return the scalar float32 mean over teachers.

        Args:
            student: Maps with gradient.
            teachers: Maps without, of each teacher.
            regions: The objects of the batch, as each teacher sees them.
            note: Is told the number of each teacher, its strides and the loss of each, (levels,).
            shares: Weight of each in this step, in place of its own; a teacher of 0 is left out.
        """
        means, members = [], cast(Sequence[Criterion], self.members)
        shares = self.shares if shares is None else shares
        for number, (member, share, seen, own) in enumerate(zip(members, shares, teachers, regions, strict=True)):
            if share == 0:
                continue
            levels = member.by_level(student, seen, own)
            note(number, member.strides, levels.detach())
            means.append(share * levels.mean())
        return torch.stack(means).sum()


class HeadTerms:
    """Terms on what the heads of student and teacher say of every cell.

    Args:
        score_weight: Weight of the class scores; 0 leaves them out.
        box_weight: Weight of the boxes; 0 leaves them out.
        classes: Index in the student and in the teacher of each class that both know.
        gate: Says how much they count while training; None for always.
        balance: How far classes count alike in the boxes, whatever the cells that they fill, in [0, 1].
        is_whole: Whether both know every class of the data. A gate that sees a part of them says nothing of features.
    """

    def __init__(
        self,
        score_weight: float,
        box_weight: float,
        classes: Sequence[tuple[int, int]],
        gate: Gate | None = None,
        balance: float = 0.0,
        is_whole: bool = True,
    ) -> None:
        """Keep weights and classes."""
        self.gate = gate
        self._is_whole = is_whole
        self._balance = balance
        self.weights = {SCORE_TERM: score_weight, BOX_TERM: box_weight}
        self.names = tuple(name for name, weight in self.weights.items() if weight > 0)
        self._student, self._teacher = (list(indices) for indices in zip(*classes, strict=True))

    @property
    def factor(self) -> float:
        """How much the terms count at present, in [0, 1]."""
        return 1.0 if self.gate is None else self.gate.value

    @property
    def feature_factor(self) -> float:
        """How much the teacher's features count at present, in [0, 1]."""
        return self.factor if self._is_whole else 1.0

    @property
    def is_due(self) -> bool:
        """Whether the gate needs this step's predictions, whatever the factor."""
        return self.gate is not None and self.gate.is_due

    def verdict(self, name: str) -> str | None:
        """Say once that the student has overtaken the teacher of this name; None otherwise."""
        return None if self.gate is None else self.gate.verdict(name, self._is_whole)

    def __call__(self, student: Predictions, teacher: Predictions) -> dict[str, Tensor]:
        """Return the weighted terms by name, without the factor.

        Args:
            student: With gradient.
            teacher: Of the same cells, without.

        Raises:
            IMAError: If the two heads have different cells.
        """
        if student.boxes.shape != teacher.boxes.shape:
            raise IMAError("the heads of student and teacher have different cells; use ima_cls=0 ima_box=0")
        student_scores, teacher_scores = _of(self._student, student.scores), _of(self._teacher, teacher.scores)
        terms = {}
        if SCORE_TERM in self.names:
            terms[SCORE_TERM] = score_loss(student_scores, teacher_scores) * self.weights[SCORE_TERM]
        if BOX_TERM in self.names:
            confidence, kinds = teacher_scores.sigmoid().max(dim=2)
            if self._balance > 0:
                confidence = balanced(confidence, kinds, teacher_scores.shape[2], self._balance)
            terms[BOX_TERM] = box_loss(student.boxes, teacher.boxes, confidence) * self.weights[BOX_TERM]
        return terms


def _of(classes: list[int], scores: Tensor) -> Tensor:
    """Scores of some classes, (B, A, K) -> (B, A, k). Picking costs more than the loss: all in order stay in place."""
    if classes == list(range(scores.shape[2])):
        return scores
    return scores.index_select(2, torch.tensor(classes, device=scores.device))


def build_criterion(
    settings: Settings,
    strides: Sequence[int],
    student_channels: Mapping[int, int],
    teacher_channels: Mapping[int, int],
    rng: torch.Generator,
    seed: int,
) -> Criterion:
    """Build the criterion that the settings ask for.

    The new layers draw their weights from a stream of their own: the student's data order and initial weights are the
    same with distillation as without.

    Args:
        settings: What the user chose.
        strides: Levels in use.
        student_channels: Channels of the student at each stride.
        teacher_channels: Channels of the teacher at each stride.
        rng: Source of the masks, on the training device.
        seed: Seed of the new layers.
    """
    with repeatable(seed):
        levels = {
            stride: _level(settings, student_channels[stride], teacher_channels[stride], stride == min(strides), rng)
            for stride in strides
        }
    return Criterion(levels)


def build_head_terms(
    settings: Settings, teacher: Teacher, names: Mapping[int, str], gains: Mapping[str, float]
) -> HeadTerms | None:
    """Build the terms on the heads, with the gains of the task's own losses as their unit.

    Args:
        settings: What the user chose.
        teacher: For the classes that it knows.
        names: The data's class names by index.
        gains: Gains of the task's own losses, "cls" and "box".

    Returns:
        The terms, or None where the settings ask for none.

    Raises:
        IMAError: If the teacher knows none of the classes.
    """
    if not settings.needs_predictions:
        return None
    classes = shared_classes(teacher, names)
    if not classes:
        raise IMAError(f"ima_cls, ima_box: {teacher.name} knows none of the data's classes; use ima_cls=0 ima_box=0")
    weights = float(settings.ima_cls) * gains["cls"], float(settings.ima_box) * gains["box"]
    gate = Gate(dict(classes)) if settings.ima_gate else None
    return HeadTerms(*weights, classes, gate, settings.ima_balance, is_whole=len(classes) == len(names))


def build_weight(settings: Settings) -> AutoWeight | FixedWeight:
    """Build the weight that the settings ask for."""
    if settings.ima_weight == "auto":
        ratio = settings.ima_weight_ratio
        return AutoWeight(RATIO if ratio == "auto" else ratio)
    return FixedWeight(float(settings.ima_weight))


def _level(settings: Settings, student: int, teacher: int, finest: bool, rng: torch.Generator) -> LevelLoss:
    always = settings.ima_adapter == "always"
    if settings.ima_loss == "l2":
        return L2Loss(student, teacher, always)
    if settings.ima_loss == "pkd":
        return PKDLoss(student, teacher, always)
    if settings.ima_loss == "cwd":
        return CWDLoss(student, teacher, always, settings.ima_temperature)
    if settings.ima_loss == "mgd":
        return MGDLoss(student, teacher, always, settings.ima_mask_ratio, rng)
    return IMALoss(
        student,
        teacher,
        always,
        mask=settings.ima_mask,
        mask_ratio=settings.ima_mask_ratio,
        restore=settings.restore,
        instance="image" if settings.ima_instance == "auto" else settings.ima_instance,
        box_size=settings.ima_box_size,
        finest=finest,
        standardized=settings.ima_standardize,
        deflation=settings.ima_deflation,
        floor=settings.ima_deflation_floor,
        objects=settings.ima_objects,
        background=settings.ima_background,
        rng=rng,
    )
