"""What is let in: nothing that runs code or grows beyond its file, unless the user said `ima_trust=True`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError

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


def check_archive(path: Path) -> None:
    """Refuse a checkpoint whose parts are compressed or overlap: `torch.save` writes none, and they hide any size.

    Args:
        path: A file; what is no zip archive is left to others.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise IMAError("the file is empty, truncated or not a checkpoint") from error
    packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if packed or sum(part.file_size for part in parts) > path.stat().st_size:
        raise IMAError("refused, since its parts unpack to more than the file holds")


def shorten(value: Any) -> str:
    """The beginning of a text that somebody else may have made long."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
