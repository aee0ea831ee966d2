"""What a checkpoint calls while it is loaded: nothing but what puts tensors and plain values together.

Safe loading lets a file name any class of layers and losses. Objects of them are made without a call, but a pickle may
also call one, with arguments of its choosing: some open files and addresses, and all take as much memory as they are
told to. So the pickle is gone through first, with stand-ins for everything that it names.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

from ima_yolo.errors import IMAError

CLASSES = ("ultralytics.nn", "ultralytics.utils.loss", "ultralytics.utils.tal", "torch.nn", "torchvision", "clip")
PLAIN = ("torch.nn.parameter", "torchvision.transforms.functional")  # parameters, and an enumeration of ways to resize
TAKE_CLASSES = ("getattr", "_reconstructor", "__newobj__")  # functions that get a class and do not call it
LEGACY = 5  # pickles in a file from before 2020, one after the other


class _Refused(Exception):
    """A class of layers or losses, or what was taken from one, is called."""


class _Part:
    """Stands in for any object; takes whatever it is filled with, and may not be called."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)

    def __call__(self, *_: Any) -> Any:
        raise _Refused("what a class or a module gave")

    def _take(self, *_: Any) -> None:
        """Forget it."""

    __setstate__ = __setitem__ = append = extend = add = update = _take


class _Kind(type):
    """Stands in for a class: objects of any are made by `__new__`, but only those of plain values by a call."""

    is_refused: bool

    def __call__(cls, *args: Any, **_: Any) -> Any:
        _check(cls.__name__, (cls, *args))
        return object.__new__(_Part)


def _check(what: str, args: tuple[Any, ...]) -> None:
    if any(isinstance(arg, _Kind) and arg.is_refused for arg in args):
        raise _Refused(what)


class _Dry(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_refused = module.startswith(CLASSES) and not module.startswith(PLAIN)
        if is_refused or name[:1].isupper():
            return _Kind(name, (_Part,), {"is_refused": is_refused})

        def stand_in(*args: Any) -> Any:
            _check(name, () if name in TAKE_CLASSES else args)
            return object.__new__(_Part)

        return stand_in

    def persistent_load(self, _: Any) -> Any:
        return object.__new__(_Part)


def check_calls(path: Path) -> None:
    """Refuse a checkpoint that calls what it should not.

    Args:
        path: A file that `torch.save` wrote.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for part in archive.namelist():
                    if part.endswith("data.pkl"):
                        with archive.open(part) as file:
                            _Dry(file).load()
        else:
            with path.open("rb") as file:
                _go_through(file)
    except _Refused as error:
        raise IMAError(f"refused, since it carries code or classes that are called as it is loaded: {error}") from None
    except (EOFError, OSError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise IMAError("the file is empty, truncated or not a checkpoint") from error
    except Exception as error:  # what the stand-ins do not know is in no checkpoint
        raise IMAError("refused, since what it holds is not built as an Ultralytics model is") from error


def _go_through(file: IO[bytes]) -> None:
    for _ in range(LEGACY):
        _Dry(file).load()
