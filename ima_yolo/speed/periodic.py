"""What our step does only every few steps, made to happen in each and clocked, so that it can count by its share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ima_yolo.merit import Gate
from ima_yolo.speed.clock import Clock, clocked
from ima_yolo.weighting import AutoWeight, Watch

WEIGHT, GATE, WATCH = "automatic weight", "gate of the heads", "watch over the terms"


class _OpenGate(Gate):
    """A gate that measures and stays open: networks that are timed may be untrained, and would close it by chance."""

    @property
    def value(self) -> float:
        return 1.0


class _EveryWatch(Watch):
    """A watch that gives a verdict in each step and keeps it to itself: one step tells nothing."""

    def see(self, term: Tensor, maps: Sequence[Tensor]) -> str | None:
        self._seen.clear()
        super().see(term, maps)
        return None


def in_every_step(distiller: Any, clock: Clock) -> dict[str, int]:
    """Let a distiller do all its periodic work in every step, and clock it.

    Args:
        distiller: An `ima_yolo.distill.Distiller`, before its first step.
        clock: Receives the seconds.

    Returns:
        The steps between two times, by name, of what there is. The watch gives its verdict once an epoch, in its 20th
        step: as if epochs were of 20 steps, the most that it can cost.
    """
    periods: dict[str, int] = {}
    if isinstance(weight := distiller.weight, AutoWeight):
        periods[WEIGHT], weight.every = weight.every, 1
        clocked(weight, "__call__", WEIGHT, clock)
    for head in distiller.heads:
        if head is not None and head.gate is not None:
            periods[GATE], head.gate.every = head.gate.every, 1
            head.gate.__class__ = _OpenGate
            clocked(head.gate, "measure", GATE, clock)
    watches: list[Any] = list(distiller._watches.values())
    for watch in watches:
        periods[WATCH], watch.steps = watch.steps, 1
        watch.__class__ = _EveryWatch
        clocked(watch, "see", WATCH, clock)
    return periods
