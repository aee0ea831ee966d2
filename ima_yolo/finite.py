"""Terms that are no numbers: left out of a step, named, and the end of a training where they stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import Tensor
from ultralytics.utils import LOGGER

from ima_yolo.errors import IMAError
from ima_yolo.features import Features

PATIENCE = 50  # steps in a row; mixed precision finds its scale within a few
AGAIN = 100  # steps left out, after which that is said again


class Guard:
    """Keeps NaN and infinity out of the loss; what they are blamed on is said at the first and each hundredth time.

    Args:
        patience: Steps in a row after which the training ends.
    """

    def __init__(self, patience: int = PATIENCE) -> None:
        """Start without a fault."""
        self.patience = patience
        self._in_a_row: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def passes(self, name: str, term: Tensor, explain: Callable[[], str], weights: Iterable[Tensor] = ()) -> bool:
        """Whether a term may enter the loss.

        It may where the weights that made it are spoilt themselves: no later step would be any better, and Ultralytics
        goes back to the last checkpoint, adapters included, where the loss is no number.

        Args:
            name: The term's name.
            term: Scalar.
            explain: Finds out what is to blame; called where something is.
            weights: Those of the adapters.

        Raises:
            IMAError: If it was no number in too many steps in a row.
        """
        if bool(term.detach().isfinite()):
            self._in_a_row[name] = 0
            return True
        if not all(bool(weight.isfinite().all()) for weight in weights):
            return True
        self._in_a_row[name] = self._in_a_row.get(name, 0) + 1
        self._left_out[name] = count = self._left_out.get(name, 0) + 1
        if count == 1 or count % AGAIN == 0:
            often = f" ({count} so far)" if count > 1 else ""
            LOGGER.warning(f"{name} is NaN or infinite and left out of such steps{often}: {explain()}")
        if self._in_a_row[name] >= self.patience:
            raise IMAError(
                f"{name} was NaN or infinite in {self.patience} steps in a row: {explain()}; "
                "lower lr0= or ima_weight=, or train with amp=False"
            )
        return False


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
