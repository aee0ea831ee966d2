"""A clock inside a step: how long stretches of it take, without those inside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def wait(device: torch.device) -> None:
    """Wait for a GPU to have done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Clock:
    """Adds up seconds by name.

    Args:
        device: Where the stretches run; a GPU is waited for at both ends of each.
    """

    def __init__(self, device: torch.device) -> None:
        """Start with nothing timed."""
        self.seconds: dict[str, float] = {}
        self._device = device
        self._inside: list[float] = []  # seconds of the stretches inside each open one

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time what is done inside, except for what is timed there by itself."""
        wait(self._device)
        start = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            wait(self._device)
            whole = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._inside.pop()
            if self._inside:
                self._inside[-1] += whole


def clocked(thing: Any, method: str, name: str, clock: Clock) -> None:
    """Let one object's method be timed from now on, whoever calls it.

    Args:
        thing: Its class becomes a subclass of its own, since Python looks up `__call__` there.
        method: Such as "forward".
        name: Under which the clock adds it up.
        clock: Of the step.
    """
    kind = type(thing)
    plain: Callable[..., Any] = getattr(kind, method)

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        with clock(name):
            return plain(self, *args, **kwargs)

    thing.__class__ = type(kind.__name__, (kind,), {method: timed, "__module__": kind.__module__})
