"""What a checkpoint may do while it is loaded: put tensors, layers and plain values together, and nothing else.

Safe loading lets a file name any class of layers and losses, and hand them states and arguments of its choosing: some
open files and addresses, some call what they are handed, and all take as much memory as they are told to. So the pickle
is gone through first, with stand-ins that know the few things that `torch.save` makes of a checkpoint; a file that does
anything else is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from ima_yolo.errors import IMAError

LAYERS = re.compile(r"(ultralytics\.(nn|utils\.(loss|tal)|yolo|models)|torch\.nn\.modules|torchvision|clip)(\..*)?")
FUNCTIONAL = ("torch.nn.functional", "torch._C._nn")  # where layers of PyTorch find their activations
NUMPY = re.compile(r"numpy\._?core\.(multiarray|numeric)")
NUMBERS = re.compile(r"[biuf][1248]")  # of NumPy's types: no objects, no parts, no texts
REFERENCES = ("O", "O8")  # NumPy's type of Python objects, whose flags keep their bytes from being read as addresses
FLAGS = 63
RUNS = ("forward", "forward_fuse")  # methods by which a layer is run: fusing puts the second in the place of the first
VALUES = (torch.dtype, torch.layout, torch.memory_format)
ZIP = b"PK\x03\x04"
LEGACY = 5  # pickles in a file from before 2020, one after the other


class _Refused(Exception):
    """A checkpoint does what none does that `torch.save` wrote."""


class _Made:
    """Stands in for what a call or a name gave: it may be kept, and nothing may be done with it."""

    def _refuse(self, *_: Any) -> Any:
        raise _Refused(f"what fills or calls a {type(self).__name__.strip('_')}")

    __setstate__ = __setitem__ = __call__ = append = extend = add = update = _refuse


class _Value(_Made):
    """Of plain content: a size, a path, an activation, a method."""


class _Storage(_Made):
    """Numbers beside the pickle."""


class _Tensor(_Made):
    """Numbers with a shape."""


class _Object(_Made):
    """A layer, a loss or a namespace: made without arguments, and filled once."""

    def __new__(cls, *args: Any) -> Any:
        if args:
            raise _Refused(f"{cls.__name__} with arguments")
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        if "filled" in vars(self):
            raise _Refused(f"a {type(self).__name__} that is filled twice")
        _check_names(state)
        self.filled = True


class _Ordered(_Made):
    """An OrderedDict, which may carry the versions of a state's layers."""

    def __init__(self) -> None:
        self.size = 0

    def __setitem__(self, *_: Any) -> None:
        self.size += 1

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or state.keys() != {"_metadata"} or not isinstance(state["_metadata"], _Ordered):
            raise _Refused("attributes of an OrderedDict")


class _Number(_Made):
    """A NumPy type of numbers."""

    flags = 0

    def __setstate__(self, state: Any) -> None:
        wanted = (None, None, None, -1, -1, self.flags)  # behind its version and byte order: no parts, no fields
        if type(state) is not tuple or state[:1] != (3,) or state[1] not in tuple("<>|=") or state[2:] != wanted:
            raise _Refused("a NumPy type that is none of numbers")


class _Reference(_Number):
    """NumPy's type of Python objects."""

    flags = FLAGS


class _Array(_Made):
    """A NumPy array: of numbers in bytes, or of a list of Python objects."""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, order, content = state
        fits = _is_number(kind) and type(content) is bytes
        if isinstance(kind, _Reference) and _are_whole(shape):
            fits = type(content) is list and len(content) == math.prod(shape)
        if not (fits and _are_whole(shape) and type(order) is bool):
            raise _Refused("an array that is none of numbers")


class _Kind(type):
    """Stands in for a class, which only `object.__new__` makes objects of."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        raise _Refused(cls.__name__)


class _Function:
    """Stands in for a function or class that is called, and for what it takes and gives."""

    def __init__(self, name: str, takes: Callable[..., bool], gives: Callable[[], Any] = _Value) -> None:
        self.name, self.takes, self.gives = name, takes, gives

    def __call__(self, *args: Any) -> Any:
        try:
            fits = self.takes(*args)
        except TypeError:  # another number of arguments
            fits = False
        if not fits:
            raise _Refused(self.name)
        return self.gives()


class _DType(_Function):
    def __call__(self, *args: Any) -> Any:
        super().__call__(*args)
        return _Reference() if args[0] in REFERENCES else _Number()


def _check_names(state: Any) -> None:
    """Refuse a state that is not one of attributes."""
    if type(state) is not dict or not all(type(key) is str and not key.startswith("__") for key in state):
        raise _Refused("a state that is none of attributes")


def _are_whole(values: Any) -> bool:
    return type(values) is tuple and all(type(value) is int for value in values)


def _is_empty(hooks: Any) -> bool:
    return isinstance(hooks, _Ordered) and not hooks.size


def _is_tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, *rest: Any) -> bool:
    is_plain = _is_legacy_tensor(storage, offset, size, stride)
    return is_plain and type(grad) is bool and _is_empty(hooks) and not any(rest)


def _is_legacy_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> bool:
    return isinstance(storage, _Storage) and type(offset) is int and _are_whole(size) and _are_whole(stride)


def _is_typed_tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, kind: Any) -> bool:
    return _is_tensor(storage, offset, size, stride, grad, hooks) and isinstance(kind, _Value)


def _is_parameter(data: Any, grad: Any, hooks: Any, *state: Any) -> bool:
    for attributes in state:
        _check_names(attributes)
    return isinstance(data, _Tensor) and type(grad) is bool and _is_empty(hooks) and len(state) <= 1


def _is_of_type(rebuild: Any, kind: Any, args: Any, state: Any) -> bool:
    """Whether a tensor with attributes is put together, by a function above that is handed its own arguments."""
    if state:
        _check_names(state)
    known = isinstance(rebuild, _Function) and rebuild.gives is _Tensor and rebuild.name != "_rebuild_from_type_v2"
    return known and kind in (TENSOR, PARAMETER) and type(args) is tuple and isinstance(rebuild(*args), _Tensor)


def _is_run(of: Any, name: Any) -> bool:
    """Whether the way in which a layer, or a class of layers, is run is taken from it."""
    return (isinstance(of, _Object) or type(of) is _Kind) and name in RUNS


def _is_latin(data: Any, *coding: Any) -> bool:
    """Whether bytes are written as older pickles write them, or as they are."""
    return type(data) is (str if coding else bytes) and coding in ((), ("latin1",), ("latin-1",))


def _is_buffer(data: Any, kind: Any, shape: Any, order: Any) -> bool:
    return type(data) in (bytes, bytearray) and _is_number(kind) and _are_whole(shape) and order in ("C", "F")


def _is_number(kind: Any) -> bool:
    return isinstance(kind, _Number) and not isinstance(kind, _Reference)


def _are(kind: type, most: int) -> Callable[..., bool]:
    return lambda *args: len(args) <= most and all(type(arg) is kind for arg in args)


TENSOR, PARAMETER, ARRAY = (_Kind(name, (_Object,), {}) for name in ("Tensor", "Parameter", "ndarray"))
REBUILD: dict[str, Callable[..., bool]] = {
    "_rebuild_tensor": _is_legacy_tensor,
    "_rebuild_tensor_v2": _is_tensor,
    "_rebuild_tensor_v3": _is_typed_tensor,
    "_rebuild_parameter": _is_parameter,
    "_rebuild_parameter_with_state": _is_parameter,
}
KNOWN: dict[tuple[str, str], Any] = {
    **{("torch._utils", name): _Function(name, takes, _Tensor) for name, takes in REBUILD.items()},
    ("torch._tensor", "_rebuild_from_type_v2"): _Function("_rebuild_from_type_v2", _is_of_type, _Tensor),
    ("torch", "Tensor"): TENSOR,
    ("torch.nn.parameter", "Parameter"): PARAMETER,
    ("torch", "Size"): _Function("Size", _are_whole),
    ("torch", "device"): _Function("device", lambda kind, index=0: type(kind) is str and type(index) is int),
    ("collections", "OrderedDict"): _Function("OrderedDict", _are(list, 0), _Ordered),
    ("builtins", "set"): _Function("set", _are(list, 1)),
    ("builtins", "bytearray"): _Function("bytearray", _is_latin),
    ("builtins", "getattr"): _Function("getattr", _is_run),
    ("_codecs", "encode"): _Function("encode", _is_latin, bytes),
    ("numpy", "dtype"): _DType("dtype", lambda code, *_: bool(NUMBERS.fullmatch(code) or code in REFERENCES)),
    ("numpy", "ndarray"): ARRAY,
    **{
        (home, name): _Function(name, _are(str, 1000))
        for home in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    },
    ("ultralytics.utils", "IterableSimpleNamespace"): _Function("IterableSimpleNamespace", _are(list, 0), _Object),
    ("torchvision.transforms.functional", "InterpolationMode"): _Function("InterpolationMode", _are(str, 1)),
}
"""What a file may name beside layers, losses and values -> its stand-in."""

ARRAYS: dict[str, _Function] = {
    "scalar": _Function("scalar", lambda kind, data: _is_number(kind) and type(data) is bytes),
    "_reconstruct": _Function(
        "_reconstruct", lambda kind, shape, code: (kind, shape) == (ARRAY, (0,)) and code in (b"b", "b", b""), _Array
    ),
    "_frombuffer": _Function("_frombuffer", _is_buffer),
}
"""Functions of NumPy, wherever a release has them."""


class _Dry(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module, module)
        if "." in name:  # PyTorch joins both, wherever a file parts them
            raise _Refused(f"{module}.{name}")
        if (module, name) in KNOWN:
            return KNOWN[module, name]
        if NUMPY.fullmatch(module) and name in ARRAYS:
            return ARRAYS[name]
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return _Value()
        is_value = module == "torch" and isinstance(getattr(torch, name, None), VALUES)
        if is_value or module in FUNCTIONAL:  # activations are kept, and not called
            return _Value()
        if LAYERS.fullmatch(module):
            return _Kind(name, (_Object,), {})
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, _: Any) -> Any:
        return _Storage()


def check_calls(path: Path) -> None:
    """Refuse a checkpoint that does what it should not.

    Args:
        path: A file that `torch.save` wrote.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    with path.open("rb") as file:
        is_archive = file.read(len(ZIP)) == ZIP  # by which PyTorch tells
        file.seek(0)
        check_pickles(path if is_archive else file, LEGACY)


def check_pickles(source: Path | IO[bytes], count: int = 1, whole: str = "an Ultralytics model") -> None:
    """Refuse pickles that do what they should not.

    Args:
        source: An archive of `torch.save`, or a file at the beginning of the first.
        count: How many follow each other in it.
        whole: What they are part of, for the message.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    try:
        if isinstance(source, Path):  # its pickle is found by PyTorch's own reader
            source, count = io.BytesIO(torch._C.PyTorchFileReader(str(source)).get_record("data.pkl")), 1
        for _ in range(count):
            _Dry(source).load()
    except _Refused as error:
        raise IMAError(f"refused, since it carries code or classes that are not part of {whole}: {error}") from None
    except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise IMAError("the file is empty, truncated or not a checkpoint") from error
    except Exception as error:  # what the stand-ins do not know is in no checkpoint
        raise IMAError("refused, since what it holds is not built as an Ultralytics model is") from error
