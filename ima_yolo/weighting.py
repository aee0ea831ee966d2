"""How much a distillation term counts: its schedule, its automatic weight, and a watch over terms that do nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, distributed

HALF_SCALE = 1024.0  # keeps gradients of an unscaled loss above the smallest float16; a power of two, so exact


def schedule(kind: str, progress: float, off: float = 0.0) -> float:
    """Factor of the weight at a point of the training.

    Args:
        kind: "constant" (1), "linear" (1 - p) or "cosine" ((1 + cos(pi p)) / 2), p running from 0 to 1 over the part
            that is on.
        progress: Share of the training that is done, in [0, 1].
        off: Share of the training at its end without distillation, in [0, 1).

    Returns:
        A factor in [0, 1].
    """
    part = progress / (1.0 - off)
    if off > 0 and part >= 1.0 - 1e-9:  # epoch / epochs rarely meets the edge exactly
        return 0.0
    part = min(part, 1.0)
    if kind == "constant":
        return 1.0
    return 1.0 - part if kind == "linear" else (1.0 + math.cos(math.pi * part)) / 2.0


def gradient_norm(loss: Tensor, maps: Sequence[Tensor], shared: bool = True) -> float:
    """Euclidean norm of the gradient of a loss at the student's neck maps; the graph is kept.

    Args:
        loss: Scalar.
        maps: (B, C, H, W) each, part of the loss's graph.
        shared: Whether it is averaged over processes, so that all of them go on with the same weight. All have to ask
            in the same step then.

    Returns:
        The norm; 0 where the loss does not depend on the maps, NaN or infinite where its gradient is.
    """
    trained = [level for level in maps if level.requires_grad]  # layers before a frozen neck give maps without gradient
    if not loss.requires_grad or not trained:
        return 0.0
    scale = HALF_SCALE if any(level.dtype == torch.float16 for level in trained) else 1.0
    gradients = torch.autograd.grad(loss * scale, trained, retain_graph=True, allow_unused=True)
    squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
    if not squares:
        return 0.0
    norm = torch.stack(squares).sum().sqrt() / scale
    if shared and distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(norm)
        norm = norm / distributed.get_world_size()
    return float(norm)


class AutoWeight:
    r"""A weight that keeps the distillation's pull on the student in proportion to the task's.

    .. math:: \lambda = r \, \| \partial L_{task} / \partial F^S \| \, / \, \| \partial L_{distill} / \partial F^S \|

    at the neck maps F^S, where both losses meet; reaching them costs one backward pass through the head alone. Measured
    every few steps and smoothed geometrically. The idea is that of GradNorm (arXiv 1711.02257) with a set ratio.

    Args:
        ratio: r > 0.
        every: Steps between two measurements.
        momentum: Share of the old value that is kept at a measurement, in [0, 1).
    """

    def __init__(self, ratio: float, every: int = 10, momentum: float = 0.9) -> None:
        """Start without a value: the first step measures one."""
        self.ratio, self.every, self.momentum = ratio, every, momentum
        self.steps = 0
        self.value: float | None = None
        self._is_old = False

    def __call__(self, task: Tensor, term: Tensor, maps: Sequence[Tensor], share: float = 1.0) -> float:
        """Return the weight for this step.

        Args:
            task: The student's own loss, scalar with gradient.
            term: The distillation term without weight, scalar with gradient.
            maps: Neck maps in both graphs.
            share: Share of the batch's images whose mean the term is. A mean of fewer images has a longer gradient by
                chance alone, by 1 / sqrt(share); the weight does not answer to that.

        Returns:
            The weight; 1 while no finite, positive ratio has been seen.
        """
        if self.is_due:
            self._measure(gradient_norm(task, maps), gradient_norm(term, maps) * math.sqrt(share))
        self.steps += 1
        return 1.0 if self.value is None else self.value

    @property
    def is_due(self) -> bool:
        """Whether the next step measures."""
        return self.steps % self.every == 0 or self.value is None or self._is_old

    def forget(self) -> None:
        """Measure anew at the next call: what was found is old by then, and stands only until that succeeds."""
        self._is_old = True

    def _measure(self, task_norm: float, term_norm: float) -> None:
        if not (0 < task_norm < math.inf and 0 < term_norm < math.inf):
            return
        found = self.ratio * task_norm / term_norm
        if self.value is None or self._is_old:
            self.value, self._is_old = found, False
        else:
            self.value = math.exp(self.momentum * math.log(self.value) + (1 - self.momentum) * math.log(found))

    def state(self) -> dict[str, float | int | None]:
        """Plain values to go on from."""
        return {"steps": self.steps, "value": self.value, "is_old": int(self._is_old)}

    def load(self, state: dict[str, float | int | None]) -> None:
        """Go on from `state`."""
        self.steps = int(state["steps"] or 0)
        self.value = None if state["value"] is None else float(state["value"])
        self._is_old = bool(state.get("is_old"))  # checkpoints of earlier versions do not tell


class FixedWeight:
    """A weight that the user gave."""

    is_due = False  # it measures nothing

    def __init__(self, value: float) -> None:
        """Keep the value."""
        self.value: float | None = value

    def __call__(self, task: Tensor, term: Tensor, maps: Sequence[Tensor], share: float = 1.0) -> float:
        """Return the value."""
        return self.value or 0.0

    def forget(self) -> None:
        """Nothing was measured."""

    def state(self) -> dict[str, float | int | None]:
        """Nothing changes while training."""
        return {"value": self.value}

    def load(self, state: dict[str, float | int | None]) -> None:
        """Nothing to go on from: the settings carry the value."""


class Watch:
    """Finds a term that cannot teach: zero, frozen, or without gradient. Each fault is reported once.

    Args:
        name: The term's name in messages.
        steps: Steps after which a verdict is given; values stay on the device until then.
    """

    def __init__(self, name: str, steps: int = 20) -> None:
        """Start a new watch."""
        self.name, self.steps = name, steps
        self._seen: list[Tensor] = []
        self._reported: set[str] = set()

    def restart(self) -> None:
        """Watch the next steps again, as at the start of an epoch; a watch that is not complete goes on."""
        if len(self._seen) >= self.steps:
            self._seen = []

    def see(self, term: Tensor, maps: Sequence[Tensor]) -> str | None:
        """Take note of a step.

        Args:
            term: The term without weight, scalar.
            maps: What of the student is compared, in the term's graph: neck maps, or what its head says.

        Returns:
            A warning, or None.
        """
        if len(self._seen) >= self.steps:
            return None
        self._seen.append(term.detach())
        if len(self._seen) < self.steps:
            return None
        values = torch.stack(self._seen)
        if bool(values.any()) and not bool(values[-1]):
            self._seen.pop()  # a batch without objects says nothing of the gradient: look at the next one
            return None
        # alone: where a process has left a step out, or has an image without objects, the others are ahead of it
        return self._verdict(values, gradient_norm(term, maps, shared=False))

    def _verdict(self, values: Tensor, norm: float) -> str | None:
        if not bool(values.any()):
            fault = "was zero in every one of"
        elif norm == 0.0:
            fault = "has no gradient at the student after"
        elif bool((values == values[0]).all()):
            fault = "did not change over"
        else:
            return None
        if fault in self._reported:
            return None
        self._reported.add(fault)
        return f"{self.name} {fault} {self.steps} steps: the student learns nothing from the teacher"
