"""What stands in for the objects of a pickle: each knows in which ways it may be filled, and holds next to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

REFERENCES = ("O", "O8")  # NumPy's type of Python objects, whose flags keep their bytes from being read as addresses
FLAGS = 63


class Refused(Exception):
    """A file does what none does that `torch.save` wrote."""


class Made:
    """Stands in for what a call or a name gave: it may be kept, and nothing may be done with it."""

    def _refuse(self, *_: Any) -> Any:
        raise Refused(f"what fills or calls a {type(self).__name__}")

    __setstate__ = __setitem__ = __call__ = _refuse


class Value(Made):
    """Of plain content: a size, a path, an activation, a method."""


class StorageType(Made):
    """A type of numbers beside the pickle.

    Args:
        width: Bytes of one of them.
    """

    def __init__(self, width: int) -> None:
        """Keep the width."""
        self.width = width


class Storage(Made):
    """Numbers beside the pickle."""


class Tensor(Made):
    """Numbers with a shape."""


class Object(Made):
    """A layer, a loss or a namespace: made without arguments, and filled once."""

    needed: tuple[str, ...] = ()  # attributes by which its class counts while it is filled

    def __setstate__(self, state: Any) -> None:
        """Take attributes, once."""
        if "filled" in vars(self):
            raise Refused(f"a {type(self).__name__} that is filled twice")
        check_names(state)
        if any(type(state.get(name, {})) not in (dict, Ordered) for name in ("_parameters", "_buffers", "_modules")):
            raise Refused(f"a {type(self).__name__} whose parts are none")  # looked through while others are filled
        if not all(type(state.get(name)) is int for name in self.needed):
            raise Refused(f"a {type(self).__name__} without numbers")
        self.filled = True


class Ordered(Made):
    """An OrderedDict, which may carry the versions of a state's layers; one of hooks stays empty."""

    def __init__(self) -> None:
        """Begin without items."""
        self.size, self.is_closed = 0, False

    def __setitem__(self, *_: Any) -> None:
        """Count an item."""
        if self.is_closed:
            raise Refused("hooks of a tensor")
        self.size += 1

    def __setstate__(self, state: Any) -> None:
        """Take versions."""
        if type(state) is not dict or state.keys() != {"_metadata"} or not isinstance(state["_metadata"], Ordered):
            raise Refused("attributes of an OrderedDict")


class Number(Made):
    """A NumPy type of numbers."""

    flags = 0

    def __setstate__(self, state: Any) -> None:
        """Take its version and byte order, and neither parts nor fields."""
        wanted = (None, None, None, -1, -1, self.flags)
        if type(state) is not tuple or state[:1] != (3,) or state[1] not in tuple("<>|=") or state[2:] != wanted:
            raise Refused("a NumPy type that is none of numbers")


class Reference(Number):
    """NumPy's type of Python objects."""

    flags = FLAGS


class Array(Made):
    """A NumPy array: of numbers in bytes, or of a list of Python objects."""

    holds_objects = False

    def __setstate__(self, state: Any) -> None:
        """Take numbers or objects, of which there are as many as it says."""
        _, shape, kind, order, content = state
        self.holds_objects = isinstance(kind, Reference)
        fits = is_number(kind) and type(content) is bytes
        if self.holds_objects and are_whole(shape):
            fits = type(content) is list and len(content) == math.prod(shape)
        if not (fits and are_whole(shape) and type(order) is bool):
            raise Refused("an array that is none of numbers")


class Kind(type):
    """Stands in for a class, which only `object.__new__` makes objects of."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        """Refuse to be called."""
        raise Refused(cls.__name__)

    def make(cls) -> Any:
        """Make an object, without arguments."""
        return super().__call__()


class Function:
    """Stands in for a function or class that is called, and for what it takes and gives.

    Args:
        name: For the message.
        takes: Whether it may be called with these arguments.
        gives: Makes what stands in for its result.
    """

    def __init__(self, name: str, takes: Callable[..., bool], gives: Callable[[], Any] = Value) -> None:
        """Keep them."""
        self.name, self.takes, self.gives = name, takes, gives

    def __call__(self, *args: Any) -> Any:
        """Give a stand-in, or refuse."""
        try:
            fits = self.takes(*args)
        except TypeError:  # another number of arguments
            fits = False
        if not fits:
            raise Refused(self.name)
        return self.gives()


class Encode(Function):
    """Stands in for `_codecs.encode`, whose results count when they are handed on."""

    def __call__(self, *args: Any) -> Any:
        """Give the bytes, or none where there is no text."""
        super().__call__(*args)
        return args[0].encode("latin1") if isinstance(args[0], str) else args[0]


class DType(Function):
    """Stands in for `numpy.dtype`."""

    def __call__(self, *args: Any) -> Any:
        """Give a type of numbers or of objects."""
        super().__call__(*args)
        return Reference() if args[0] in REFERENCES else Number()


def check_names(state: Any, of_tensor: bool = False) -> None:
    """Refuse a state that is not one of attributes, or that replaces what PyTorch's tensors have by themselves."""
    fits = type(state) is dict and all(type(name) is str and not name.startswith("__") for name in state)
    if not fits or (of_tensor and any(hasattr(torch.Tensor, name) for name in state)):
        raise Refused("a state that is none of attributes")


def are_whole(values: Any) -> bool:
    """Whether this is a tuple of whole numbers."""
    return type(values) is tuple and all(type(value) is int for value in values)


def is_number(kind: Any) -> bool:
    """Whether this is a NumPy type of numbers."""
    return isinstance(kind, Number) and not isinstance(kind, Reference)
