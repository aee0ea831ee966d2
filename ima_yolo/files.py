"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError, one_line

MOST_BYTES = 2**27  # of a text that is read whole: what we write has a few MB, and a sparse file may claim any size


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Offer a name to write to; on success, what stands there becomes `path`, and otherwise `path` stays as it was.

    Also where the disk is full or the power fails. Folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")  # the stem stays, which PyTorch writes into each record of a checkpoint
    partial.unlink(missing_ok=True)  # what is left there may be a link, through which would be written
    try:
        yield partial
        with partial.open("rb+") as file:  # some systems sync only what is open for writing
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if error.filename is None:  # as of a write to a full disk: so that a message can say where
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write a file as `replacing` does."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_json(path: Path, mend: str = "remove it, and it is made again") -> Any:
    """Read a file that `write_json` wrote.

    Args:
        path: The file.
        mend: What to do where it is damaged.

    Raises:
        IMAError: If it cannot be read, is too large, or nests without end.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise IMAError(f"{path}: cannot be read ({one_line(error)}); {mend}") from error


def read_text(path: Path) -> str:
    """Read a file of at most `MOST_BYTES` in UTF-8.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is larger, or no such text.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES >> 20} MiB")
    return content.decode("utf-8")


def check_folder(folder: Path, asked_by: str) -> None:
    """Refuse a folder for results that cannot be made or written to.

    Args:
        folder: There or not.
        asked_by: How the message calls it.

    Raises:
        IMAError: If nothing can be written there.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise IMAError(f"{asked_by}: cannot write to {existing} ({error.strerror})") from error


def missing_folders(folder: Path) -> tuple[Path, ...]:
    """A folder and those above it that are not there yet, itself first; none where it is there."""
    return tuple(path for path in (folder, *folder.parents) if not path.exists())


def take_away(folder: Path, made: Sequence[Path]) -> None:
    """Remove a folder with what it holds, and those above that were made for it, where nothing else lies in them.

    Args:
        folder: Of a run that came to nothing.
        made: What `missing_folders` gave before; nothing is removed where that is empty.
    """
    if not made:
        return
    shutil.rmtree(folder, ignore_errors=True)
    for above in made[1:]:
        with suppress(OSError):  # others may have written there meanwhile
            above.rmdir()
