"""A request to end, by whatever name it comes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM (`docker stop`, `kill`) and SIGHUP (a terminal that closes) end what runs inside as Ctrl-C does.

    As the first process of a container a program would otherwise not even see them. A second one is ignored, so that
    what was done can be written. Without effect outside the main thread, where no handler may be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = [(ending, signal.getsignal(ending)) for ending in ENDINGS]
    for ending, handler in before:
        if handler is not signal.SIG_IGN:  # as under nohup
            signal.signal(ending, interrupt)
    try:
        yield
    finally:
        for ending, handler in before:
            signal.signal(ending, signal.SIG_DFL if handler is None else handler)
