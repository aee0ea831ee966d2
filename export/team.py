"""Several runs of one file at the same time, one a thread."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import onnxruntime as ort

from .session import open_session

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Part = TypeVar("Part")
Done = TypeVar("Done")


_TEAMS: weakref.WeakSet[Team] = weakref.WeakSet()


class Team:
    """Threads that run one file at the same time, in a session that itself has one thread; made on first use."""

    def __init__(self, path: Path, size: int) -> None:
        """Prepare a team without opening anything.

        Args:
            path: The file.
            size: Threads; 1 is no team.
        """
        self._path, self._size, self._stamp = path, size, _stamp(path)
        self.disband()
        _TEAMS.add(self)

    def disband(self) -> None:
        """Forget the threads; the next use makes new ones."""
        self._lock = threading.Lock()
        self._members: tuple[ort.InferenceSession, ThreadPoolExecutor] | None = None

    def map(self, work: Callable[[Part, ort.InferenceSession], Done], parts: Sequence[Part]) -> list[Done]:
        """Do some work on the first of the parts, as many as keep every thread busy to the end.

        Args:
            work: Part, session -> result; called by several threads.
            parts: What is to be done.

        Returns:
            The results of the first parts in their order; the rest is left to the caller.
        """
        rounds = len(parts) // self._size
        members = self._ready() if rounds and self._size > 1 else None
        if members is None:
            return []
        session, pool = members
        return list(pool.map(lambda part: work(part, session), parts[: rounds * self._size]))

    def _ready(self) -> tuple[ort.InferenceSession, ThreadPoolExecutor] | None:
        """The session and the threads; None where the file is no longer the one that the caller opened."""
        from concurrent.futures import ThreadPoolExecutor  # single pictures start faster without it

        with self._lock:
            if self._members is None and _stamp(self._path) == self._stamp:
                self._members = open_session(self._path, 1), ThreadPoolExecutor(self._size)
            return self._members


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What changes with a file's content; None where it is gone."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _disband_all() -> None:
    for team in list(_TEAMS):
        team.disband()


if hasattr(os, "register_at_fork"):  # a forked process has none of the threads, though it has the objects
    os.register_at_fork(after_in_child=_disband_all)
