"""What a file may do while it is loaded: put tensors, layers and plain values together, and nothing else."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ima_yolo.errors import IMAError
from ima_yolo.pickles.archive import is_archive, read_parts
from ima_yolo.pickles.names import of_cache, of_checkpoint
from ima_yolo.pickles.reader import Reader
from ima_yolo.pickles.stand_ins import Array, Refused

LEGACY = 3  # pickles of a file from before 2020 before that of its content; the one behind it lists what follows


def check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that does what it should not, or that would take more memory than it has bytes.

    Args:
        path: A file that `torch.save` wrote.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    with _refusing("an Ultralytics model"):
        if is_archive(path):
            content, parts = read_parts(path)
            reader = Reader(io.BytesIO(content), of_checkpoint)
            reader.load()
            if any(parts.get(f"data/{key}") != size for key, size in reader.storages.items()):
                raise Refused("what a tensor holds")
            return
        with path.open("rb") as file:
            _check_legacy(file, path.stat().st_size)


def _check_legacy(file: IO[bytes], size: int) -> None:
    reader = Reader(file, of_checkpoint)
    for _ in range(LEGACY + 1):
        reader.load()
    keys = reader.load()
    if type(keys) is not list or sorted(keys) != sorted(reader.storages) or sum(reader.storages.values()) > size:
        raise Refused("what a tensor holds")  # PyTorch makes room for all of it, and fills what is listed


def check_cache(file: IO[bytes]) -> None:
    """Refuse a cache of labels that does what it should not.

    Args:
        file: Behind the header that NumPy wrote.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    with _refusing("a cache of labels"):
        if not isinstance(Reader(file, of_cache, is_newer=True).load(), Array):
            raise Refused("what is no array")


@contextmanager
def _refusing(whole: str) -> Iterator[None]:
    try:
        yield
    except IMAError:
        raise
    except Refused as error:
        raise IMAError(f"refused, since it carries code or classes that are not part of {whole}: {error}") from None
    except (EOFError, OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise IMAError("the file is empty, truncated or not a checkpoint") from error
    except Exception as error:  # what the stand-ins do not know is in no checkpoint
        raise IMAError(f"refused, since what it holds is not built as {whole} is") from error
