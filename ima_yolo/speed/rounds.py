"""Timing in alternating rounds: what disturbs a machine for a while disturbs everything that is compared alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from ima_yolo.speed.clock import wait


def alternate(
    actions: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device, say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Run every action once a round, in an order that turns by one from round to round, and time each.

    Args:
        actions: What to time, by name. One may say by an attribute `surplus` how many of its last seconds do not count.
        rounds: How often, besides a first round that is not counted.
        device: Where the actions run; a GPU is waited for before a clock is read.
        say: Receives a line a round.

    Returns:
        Seconds by name, one a round.
    """
    names = list(actions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            taken = _timed(actions[name], device)
            if number > 0:
                seconds[name].append(taken)
        say(f"round {number}/{rounds}")
    return seconds


def ratio(seconds: Mapping[str, list[float]], over: str, under: tuple[str, ...]) -> float:
    """Median over rounds of one action's time divided by the sum of others' in the same round.

    Args:
        seconds: As `alternate` returns them.
        over: Action in the numerator.
        under: Actions that are added up in the denominator.
    """
    pairs = zip(seconds[over], *(seconds[name] for name in under), strict=True)
    return median(first / sum(others) for first, *others in pairs)


def _timed(action: Callable[[], Any], device: torch.device) -> float:
    wait(device)
    start = time.perf_counter()
    action()
    wait(device)
    return time.perf_counter() - start - float(getattr(action, "surplus", 0.0))
