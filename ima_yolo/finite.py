"""Terms and gradients that are no numbers: left out of a step, named, and the end of a training where they stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError
from ima_yolo.features import Features, Predictions

PATIENCE = 50  # steps in a row; mixed precision finds its scale within a few
AGAIN = 100  # steps left out, after which that is said again
ADVICE = "lower lr0= or ima_weight=, or train with amp=False"
Levels = tuple[int, Sequence[int], Tensor]  # number of the teacher, strides, loss of each


class Guard:
    """Keeps NaN and infinity out of the loss and of its gradients, and says what they are blamed on.

    A term is looked at in its step. Its gradients come later: what they are is noted on the device while they flow
    back, and read together with the next step's terms, one read a step.

    Args:
        patience: Steps in a row after which the training ends.
    """

    def __init__(self, patience: int = PATIENCE) -> None:
        """Start without a fault."""
        self.patience = patience
        self.levels: list[Levels] = []  # what the levels of this step came to, for the blame
        self._gradients: list[tuple[Sequence[str], Tensor]] = []  # names and whether each was finite, since then
        self._is_scaled = False
        self._rests = False
        self._is_spoilt = False
        self._in_a_row: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def note(self, *levels: Any) -> None:
        """Keep what the levels of a teacher came to until the terms are looked at."""
        self.levels.append(levels)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Let gradients through unseen that are only measured."""
        self._rests = True
        try:
            yield
        finally:
            self._rests = False

    def of_maps(self, name: str, maps: Features) -> Features:
        """The same maps, through which no gradient of a term flows that is no number."""
        self._is_scaled = any(level.dtype == torch.float16 for level in maps.maps)
        levels = zip(maps.strides, maps.maps, strict=True)
        guarded = (self._guarded(level, [f"{name} at stride {stride}"], [level.shape[1]]) for stride, level in levels)
        return Features(tuple(guarded), maps.strides)

    def of_predictions(self, names: tuple[str, str], said: Predictions, maps: Features) -> Predictions:
        """The same for what the head makes of these maps; the names are of the terms on scores and on boxes."""
        parts = []
        for name, part in zip(names, (said.scores, said.boxes), strict=True):
            cells, where = _cells(part, maps)
            parts.append(self._guarded(part, [f"{name} at stride {stride}" for stride in where], cells))
        return Predictions(*parts)

    def of_weights(self, name: str, weights: Iterable[Tensor]) -> None:
        """Let no gradient into weights that is no number; they keep this guard for good."""
        for weight in weights:
            if weight.requires_grad:
                weight.register_hook(partial(self._keep_out, [name], [len(weight)], dim=0))

    def _guarded(self, part: Tensor, names: Sequence[str], sizes: Sequence[int]) -> Tensor:
        if not part.requires_grad:
            return part
        alias = part.view_as(part)
        alias.register_hook(partial(self._keep_out, names, sizes))
        return alias

    def _keep_out(self, names: Sequence[str], sizes: Sequence[int], gradient: Tensor, dim: int = 1) -> Tensor | None:
        """Put zeros in place of a gradient that is no number, without waiting for the device.

        Of a scaled loss it has to stay: the scaler skips the step and lowers its scale.
        """
        if self._rests:
            return None
        fine = torch.stack([piece.isfinite().all() for piece in gradient.split(list(sizes), dim)])
        self._gradients.append((names, fine))
        return None if self._is_scaled else torch.where(fine.all(), gradient, 0.0)

    def passing(
        self, terms: Mapping[str, Tensor], explain: Callable[[str], str], weights: Iterable[Tensor] = ()
    ) -> dict[str, Tensor]:
        """Those terms that may enter the loss.

        A term that is no number may where the weights that made it are spoilt themselves: no later step would be any
        better, and Ultralytics goes back to the last checkpoint, adapters included, where the loss is no number.

        Args:
            terms: Scalars by name.
            explain: Finds out what is to blame for a term; called where something is.
            weights: Those of the adapters.

        Raises:
            IMAError: If a term or gradient was no number in too many steps in a row.
        """
        gradients, self._gradients = ([] if self._is_spoilt else self._gradients), []
        flags = [term.detach().isfinite().view(1) for term in terms.values()] + [fine for _, fine in gradients]
        read = torch.cat(flags).tolist() if flags else []
        self._is_spoilt = not all(read[: len(terms)]) and not all(bool(value.isfinite().all()) for value in weights)
        noted: dict[str, bool] = {}
        for name, fine in zip((name for names, _ in gradients for name in names), read[len(terms) :], strict=True):
            noted[name] = noted.get(name, True) and fine
        for name, fine in noted.items():
            self._count(f"the gradient of {name}", fine, None)
        passing = {
            name: term
            for (name, term), fine in zip(terms.items(), read, strict=False)
            if self._count(name, fine or self._is_spoilt, explain)
        }
        self.levels = []
        return passing

    def _count(self, name: str, fine: bool, explain: Callable[[str], str] | None) -> bool:
        """Take note of a term or gradient (which explains itself) and return whether it is fine."""
        if fine:
            self._in_a_row[name] = 0
            return True
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        self._left_out[name] = count = self._left_out.get(name, 0) + 1
        is_term, ends = explain is not None, self._in_a_row[name] >= self.patience
        speaks = (count == 1 or count % AGAIN == 0) and (
            is_term or not self._is_scaled
        )  # finding its scale is no fault
        reason = f": {explain(name)}" if explain and (speaks or ends) else ""
        if speaks:
            often = f" ({count} so far)" if count > 1 else ""
            LOGGER.warning(f"{name} is NaN or infinite and left out of such steps{often}{reason}")
        if ends:
            raise IMAError(f"{name} was NaN or infinite in {self.patience} steps in a row{reason}; {ADVICE}")
        return False


def _cells(part: Tensor, maps: Features) -> tuple[list[int], list[int | str]]:
    """Cells of each level among those of a head, (B, A, ...), and its stride."""
    cells = [level.shape[2] * level.shape[3] for level in maps.maps]
    if part.ndim < 2 or sum(cells) != part.shape[1]:
        return [part.shape[1] if part.ndim > 1 else 0], ["?"]
    return cells, list(maps.strides)


@dataclass(frozen=True)
class Suspects:
    """Whatever may have made a term no number.

    Attributes:
        student: The student's maps.
        said: What its head says; None if it was not asked.
        teachers: Name of each, its maps in the student's strides, and what its head says.
        strides: Levels in use.
        levels: Losses of this step.
    """

    student: Features
    said: Predictions | None
    teachers: Sequence[tuple[str, Features, Predictions | None]]
    strides: Sequence[int]
    levels: Sequence[Levels]

    def explain(self, is_of_maps: bool) -> str:
        """Say what made a term infinite, and at which stride."""
        if not is_of_maps:
            return self._of_heads()
        text = blame(self.student, [(who, maps) for who, maps, _ in self.teachers], self.strides)
        if "not finite" in text:
            return text
        for number, strides, losses in self.levels:
            for stride, fine in zip(strides, losses.isfinite().tolist(), strict=True):
                if not fine:
                    return (
                        f"the loss against {self.teachers[number][0]} at stride {stride} is not finite, though {text}"
                    )
        return text

    def _of_heads(self) -> str:
        sides = [("the student", self.said), *((f"teacher {who}", said) for who, _, said in self.teachers)]
        for who, said in sides:
            for what, part in (("scores", said.scores), ("boxes", said.boxes)) if said else ():
                cells, strides = _cells(part, self.student)
                for stride, piece in zip(strides, part.split(cells, 1), strict=True):
                    if not bool(piece.isfinite().all()):
                        return f"the {what} of {who} at stride {stride} are not finite"
        return "scores and boxes of student and teachers are finite"


def blame(student: Features, teachers: Sequence[tuple[str, Features]], strides: Sequence[int]) -> str:
    """Say which map made a feature term infinite, or where the largest value is if all maps are finite.

    Args:
        student: The student's maps.
        teachers: Name and maps of each teacher, in the student's strides.
        strides: Levels in use.
    """
    sides = [("the student", student), *((f"teacher {name}", maps) for name, maps in teachers)]
    levels = [(who, stride, maps.at(stride)) for who, maps in sides for stride in strides if stride in maps.strides]
    for who, stride, level in levels:
        if not bool(level.isfinite().all()):
            return f"the map of {who} at stride {stride} is not finite"
    peaks = [(float(level.detach().abs().max()), who, stride) for who, stride, level in levels if level.numel()]
    if not peaks:
        return "all maps are empty"
    peak, who, stride = max(peaks)
    return f"all maps are finite; the largest value, {peak:.3g}, is of {who} at stride {stride}"
