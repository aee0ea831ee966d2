"""What a checkpoint calls while it is loaded: nothing but what puts tensors and plain values together.

Safe loading lets a file name any class of layers and losses. Objects of them are made without a call, but a pickle may
also call one, with arguments of its choosing: some open files and addresses, and all take as much memory as they are
told to. So the pickle is gone through first, with stand-ins for everything that it names.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import IO, Any

import torch

from ima_yolo.errors import IMAError

CLASSES = ("ultralytics.nn", "ultralytics.utils.loss", "ultralytics.utils.tal", "torch.nn", "torchvision", "clip")
PLAIN = ("torch.nn.parameter", "torchvision.transforms.functional")  # parameters, and an enumeration of ways to resize
REBUILD, FROM_TYPE = "_rebuild_", "_rebuild_from_type_v2"  # functions of PyTorch that put tensors together
VALUES = (torch.dtype, torch.layout, torch.memory_format)
MOST = 2**24  # of a number that is handed to a call: bytes, for one, that it takes
ZIP = b"PK\x03\x04"
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


class _Taken(_Part):
    """Stands in for what `getattr` gave: it may be kept, and handed to nothing."""


class _Kind(type):
    """Stands in for a class: objects of any are made by `__new__`, but only those of plain values by a call."""

    is_refused: bool

    def __call__(cls, *args: Any, **_: Any) -> Any:
        _check(cls.__name__, (cls, *args))
        return object.__new__(_Part)


class _Function:
    """Stands in for a function."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        if self.name == "getattr":
            return object.__new__(_Taken)
        if self.name == FROM_TYPE:  # it calls its first argument
            first, args = args[0], args[1:]
            if not isinstance(first, _Function) or first.name == FROM_TYPE or not first.name.startswith(REBUILD):
                raise _Refused(f"{self.name} of another function")
        _check(self.name, args)
        return object.__new__(_Part)


def _check(what: str, args: Any) -> None:
    """Refuse a call that is handed a class of layers, a function, what was taken from an object, or a huge number."""
    for arg in args:
        if isinstance(arg, (tuple, list, set, frozenset)):
            _check(what, arg)
        elif isinstance(arg, dict):
            _check(what, (*arg, *arg.values()))
        elif isinstance(arg, (_Taken, _Function)) or (isinstance(arg, _Kind) and arg.is_refused):
            raise _Refused(what)
        elif isinstance(arg, int) and arg > MOST and not what.startswith(REBUILD):  # tensors are looked at later
            raise _Refused(f"{what} of {arg}")


class _Dry(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if "." in name:  # PyTorch joins both, wherever a file parts them
            raise _Refused(f"{module}.{name}")
        is_refused = module.startswith(CLASSES) and not module.startswith(PLAIN)
        if module == "torch" and isinstance(getattr(torch, name, None), VALUES):
            return object.__new__(_Part)
        if is_refused or name[:1].isupper():
            return _Kind(name, (_Part,), {"is_refused": is_refused})
        return _Function(name)

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
        with path.open("rb") as file:
            if file.read(len(ZIP)) == ZIP:  # by which PyTorch tells, and by whose reader it finds the pickle
                _Dry(io.BytesIO(torch._C.PyTorchFileReader(str(path)).get_record("data.pkl"))).load()
            else:
                file.seek(0)
                _go_through(file)
    except _Refused as error:
        raise IMAError(f"refused, since it carries code or classes that are called as it is loaded: {error}") from None
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise IMAError("the file is empty, truncated or not a checkpoint") from error
    except Exception as error:  # what the stand-ins do not know is in no checkpoint
        raise IMAError("refused, since what it holds is not built as an Ultralytics model is") from error


def _go_through(file: IO[bytes]) -> None:
    for _ in range(LEGACY):
        _Dry(file).load()
