"""With which arguments a file may call the functions that it may name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ima_yolo.pickles.stand_ins import (
    REFERENCES,
    Function,
    Kind,
    Object,
    Ordered,
    Storage,
    Tensor,
    Value,
    are_whole,
    check_names,
    is_number,
)

NUMBERS = re.compile(r"[biuf][1248]")  # of NumPy's types: no objects, no parts, no texts
RUNS = ("forward", "forward_fuse")  # methods by which a layer is run: fusing puts the second in the place of the first
MOST_DIMENSIONS = 64
PLAIN = (str, int, float, bool, type(None))
LONGEST_KEY = 64  # bits: whole numbers of more can be made to collide without end, and so can tuples of them

TENSOR, PARAMETER, ARRAY = (Kind(name, (Value,), {}) for name in ("Tensor", "Parameter", "ndarray"))


def is_key(value: Any) -> bool:
    """Whether a dictionary may have this as a key, and a set as a member."""
    return type(value) in PLAIN and (type(value) is not int or value.bit_length() <= LONGEST_KEY)


def is_shape(size: Any) -> bool:
    """Whether these are the sides of a tensor, or its strides."""
    return are_whole(size) and len(size) <= MOST_DIMENSIONS


def is_shape_of(*args: Any) -> bool:
    """Whether `torch.Size` is made of the sides of a tensor."""
    return len(args) == 1 and is_shape(args[0])


def is_tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, *rest: Any) -> bool:
    """Whether a tensor is put together of what is stored."""
    return is_legacy_tensor(storage, offset, size, stride) and type(grad) is bool and _close(hooks) and not any(rest)


def is_legacy_tensor(storage: Any, offset: Any, size: Any, stride: Any) -> bool:
    """The same without gradient and hooks, as before 2018."""
    return isinstance(storage, Storage) and type(offset) is int and is_shape(size) and is_shape(stride)


def is_typed_tensor(storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, kind: Any) -> bool:
    """The same for the newer types of numbers."""
    return is_tensor(storage, offset, size, stride, grad, hooks) and isinstance(kind, Value)


def is_parameter(data: Any, grad: Any, hooks: Any, *state: Any) -> bool:
    """Whether a parameter is made of a tensor, with attributes if it has any."""
    for attributes in state:
        check_names(attributes, of_tensor=True)
    return isinstance(data, Tensor) and type(grad) is bool and _close(hooks) and len(state) <= 1


def is_of_type(rebuild: Any, kind: Any, args: Any, state: Any) -> bool:
    """Whether a tensor with attributes is put together, by a function above that is handed its own arguments."""
    if state:
        check_names(state, of_tensor=True)
    known = isinstance(rebuild, Function) and rebuild.gives is Tensor and rebuild.name != "_rebuild_from_type_v2"
    return known and kind in (TENSOR, PARAMETER) and type(args) is tuple and isinstance(rebuild(*args), Tensor)


def is_run(of: Any, name: Any) -> bool:
    """Whether the way in which a layer, or a class of layers, is run is taken from it."""
    return (isinstance(of, Object) or type(of) is Kind) and type(name) is str and name in RUNS


def is_latin(data: Any, *coding: Any) -> bool:
    """Whether bytes are written as older pickles write them, or as they are."""
    return type(data) is (str if coding else bytes) and coding in ((), ("latin1",), ("latin-1",))


def is_dtype(code: Any, *_: Any) -> bool:
    """Whether a NumPy type of numbers or of objects is asked for."""
    return type(code) is str and bool(NUMBERS.fullmatch(code) or code in REFERENCES)


def is_scalar(kind: Any, data: Any) -> bool:
    """Whether a NumPy number is made of its bytes."""
    return is_number(kind) and type(data) is bytes


def is_empty_array(kind: Any, shape: Any, code: Any) -> bool:
    """Whether an array is made to be filled."""
    return kind is ARRAY and are_whole(shape) and shape == (0,) and code in (b"b", "b", b"")


def is_device(kind: Any, index: Any = 0) -> bool:
    """Whether a device is named."""
    return type(kind) is str and type(index) is int


def are_keys(members: Any) -> bool:
    """Whether a set is made of a list of what may be in one."""
    return type(members) is list and all(map(is_key, members))


def are_texts(most: int) -> Callable[..., bool]:
    """Makes a check for so many texts at most."""
    return lambda *args: len(args) <= most and all(type(arg) is str for arg in args)


def is_nothing(*args: Any) -> bool:
    """Whether there are no arguments."""
    return not args


def _close(hooks: Any) -> bool:
    """Whether there are no hooks; there will be none either."""
    if not isinstance(hooks, Ordered) or hooks.size:
        return False
    hooks.is_closed = True
    return True
