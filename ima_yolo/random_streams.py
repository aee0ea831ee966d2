"""The global random streams from which Ultralytics draws: their state as tensors, to keep and to put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Streams = dict[str, Tensor]


def streams() -> Streams:
    """State of the global random streams of Python, NumPy and torch, from which Ultralytics augments, as tensors."""
    found: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - Ultralytics draws from it
    return _as_tensors(random.getstate(), found, torch.get_rng_state())


def seeded(seed: int) -> Streams:
    """State of streams that begin with a seed; the global ones stay as they are."""
    numpy_state: Any = np.random.RandomState(seed).get_state(legacy=True)
    return _as_tensors(random.Random(seed).getstate(), numpy_state, torch.Generator().manual_seed(seed).get_state())


@contextmanager
def repeatable(seed: int = 0) -> Iterator[None]:
    """Draw the weights of new layers from a seed: the same each time, in a resumed run too.

    The global stream goes on as if nothing had been drawn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs as well
        yield


def set_streams(state: Streams) -> None:
    """Put the global random streams into a state that `streams` returned."""
    version, *words = state["python"].tolist()
    gauss, cached = state["gauss"].tolist()
    random.setstate((version, tuple(words), None if gauss != gauss else gauss))  # NaN stands for none
    *keys, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])


def _as_tensors(python: Any, found: Any, generator: Tensor) -> Streams:
    version, words, gauss = python
    _, keys, position, has_gauss, cached = found
    nothing = float("nan")
    return {
        "python": torch.tensor([version, *words]),
        "numpy": torch.tensor([*keys.tolist(), position, has_gauss]),
        "gauss": torch.tensor([nothing if gauss is None else gauss, cached], dtype=torch.float64),
        "torch": generator,
    }
