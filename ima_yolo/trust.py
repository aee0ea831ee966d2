"""What is let in: nothing that runs code or grows beyond its file, unless the user said `ima_trust=True`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MOST_BANDS = 1024  # of the images that a model takes
MOST_CHANNELS = 65536  # Ultralytics' own models stay below 2,048
_TRUSTED: ContextVar[bool] = ContextVar("ima_trust", default=False)


@contextmanager
def trusting(trust: bool) -> Iterator[None]:
    """Load checkpoints meanwhile as PyTorch does, with the code that they carry, if the user asked for that."""
    token = _TRUSTED.set(trust)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def trusts() -> bool:
    """Whether checkpoints may run their code now."""
    return _TRUSTED.get()


def shorten(value: Any) -> str:
    """The beginning of a text that somebody else may have made long."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
