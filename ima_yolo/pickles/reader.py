"""Goes through a pickle with stand-ins: the steps of loading it, but that nothing of its choosing is called or kept."""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from typing import IO, Any

from ima_yolo.pickles.arguments import is_key
from ima_yolo.pickles.stand_ins import Array, Kind, Made, Refused, Storage, StorageType

MOST_STEPS = 1_000_000  # Ultralytics' largest checkpoint has some 100,000
STEPS_PER_BYTE = 0.25  # of what is larger
MOST_OBJECTS = 50_000
MOST_CALLS = 200_000  # of names, and what is done with them: PyTorch goes through all that it knows for each
MOST_NAMES = 300
SHARED = 4  # how often what is stored in a pickle is handed to calls
ROOM = 2**20  # that may be handed to them beyond that
KEY = re.compile(r"[0-9]{1,18}")  # by which PyTorch finds what a tensor holds
NAME = re.compile(r"([\w.]+) (\w+)", re.ASCII)  # PyTorch joins both at dots, wherever a file parts them

CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
GIVEN = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IDLE = {"PROTO", "FRAME"}
NEWER_GIVEN = {"SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
NEWER = {*NEWER_GIVEN, "FRAME", "MEMOIZE", "STACK_GLOBAL"}
"""Of protocols 3 and 4, in which NumPy writes; all others are those that PyTorch's safe loading takes."""


class Reader:
    """Reads pickles.

    Args:
        file: At the beginning of one.
        stand_in: Gives what stands in for a name, or refuses it.
        is_newer: Whether it may be written in the protocols 3 and 4, and beside numbers of PyTorch otherwise.

    Steps that neither `torch.save` nor NumPy writes are refused, though loaders take them.

    Attributes:
        storages: What a tensor's numbers are found by -> how many bytes it says they have.
    """

    def __init__(self, file: IO[bytes], stand_in: Callable[[str, str], Any], is_newer: bool = False) -> None:
        """Begin with nothing read."""
        self.file, self.stand_in, self.is_newer = file, stand_in, is_newer
        self.storages: dict[str, int] = {}
        self.names: set[str] = set()
        self.read = self.spent = self.objects = self.holders = self.calls = 0

    def load(self) -> Any:
        """Read one pickle and stop behind it.

        Returns:
            What it holds, with stand-ins.

        Raises:
            Refused: If it does what no known file does.
            Exception: Of many kinds, if it is no pickle.
        """
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        start = self.file.tell()
        for count, (step, arg, place) in enumerate(pickletools.genops(self.file)):
            self.read = (place or 0) - start
            if count > MOST_STEPS + STEPS_PER_BYTE * self.read and not self.is_newer:  # images may be many
                raise Refused("a pickle without end")
            if step.name == "STOP":
                return self.stack.pop()
            self._do(step.name, arg)
        raise EOFError

    def _do(self, step: str, arg: Any) -> None:
        if step in NEWER and not self.is_newer:
            raise Refused("a pickle of a protocol that PyTorch does not load safely")
        if step in CONSTANTS:
            self.stack.append(CONSTANTS[step]())
        elif step in GIVEN or step in NEWER_GIVEN:
            self.stack.append(arg)
        elif step in TUPLES:
            self.stack[-TUPLES[step] :] = [tuple(self.stack[-TUPLES[step] :])]
        elif step in HANDLERS:
            HANDLERS[step](self, arg)
        elif step not in IDLE:
            raise Refused(f"the step {step} of a pickle")

    def mark(self, _: Any) -> None:
        """Begin a row of values."""
        self.marked.append(self.stack)
        self.stack = []

    def _row(self) -> list[Any]:
        row, self.stack = self.stack, self.marked.pop()
        return row

    def tuple_(self, _: Any) -> None:
        """Make a tuple of a row."""
        row = self._row()
        self.stack.append(tuple(row))

    def get(self, number: int) -> None:
        """Take a value once more."""
        self.stack.append(self.memo[number])

    def put(self, number: int) -> None:
        """Remember the last value."""
        if number > len(self.memo):  # the loader would make room for all before it
            raise Refused("a memory with gaps")
        self.memo[number] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        """Remember the last value under the next number."""
        self.put(len(self.memo))

    def append(self, _: Any) -> None:
        """Add a value to a list."""
        self._extend([self.stack.pop()])

    def appends(self, _: Any) -> None:
        """Add a row of values to a list."""
        self._extend(self._row())

    def _extend(self, row: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("a list that is none")
        self.stack[-1].extend(row)

    def setitem(self, _: Any) -> None:
        """Add an item to a dictionary."""
        row = self.stack[-2:]
        del self.stack[-2:]
        self._update(row)

    def setitems(self, _: Any) -> None:
        """Add a row of keys and values to a dictionary."""
        self._update(self._row())

    def _update(self, row: list[Any]) -> None:
        target = self.stack[-1]
        if len(row) % 2 or not (type(target) is dict or isinstance(target, Made)) or not all(map(is_key, row[::2])):
            raise Refused("a dictionary whose keys are not plain")
        for key, value in zip(row[::2], row[1::2], strict=True):
            target[key] = value

    def global_(self, names: str) -> None:
        """Take what stands in for a name."""
        self.names.add(names)
        if len(self.names) > MOST_NAMES:
            raise Refused(f"more than {MOST_NAMES} names")
        self._count()
        found = NAME.fullmatch(names)
        if not found:
            raise Refused(names[:100])
        self.stack.append(self.stand_in({"__builtin__": "builtins"}.get(found[1], found[1]), found[2]))

    def stack_global(self, _: Any) -> None:
        """The same for a name that was read as values."""
        module, name = self.stack[-2:]
        del self.stack[-2:]
        self.global_(f"{module} {name}" if type(module) is type(name) is str else "")

    def _count(self) -> None:
        self.calls += 1
        if self.calls > MOST_CALLS and not self.is_newer:
            raise Refused(f"more than {MOST_CALLS} calls")

    def reduce(self, _: Any) -> None:
        """Call a stand-in."""
        args = self.stack.pop()
        self._count()
        self._spend(args)
        if type(args) is not tuple:
            raise Refused("arguments that are none")
        self.stack[-1] = self.stack[-1](*args)

    def newobj(self, _: Any) -> None:
        """Make an object."""
        args, kind = self.stack.pop(), self.stack.pop()
        self.objects += 1
        self._count()
        if type(kind) is not Kind or type(args) is not tuple:
            raise Refused("an object that is none")
        if self.objects > MOST_OBJECTS:
            raise Refused("more objects than any model has")
        if args:
            raise Refused(f"{kind.__name__} with arguments")
        self.stack.append(kind.make())

    def build(self, _: Any) -> None:
        """Fill an object."""
        state = self.stack.pop()
        self._count()
        self._spend(state)
        made = self.stack[-1]
        if not isinstance(made, Made):
            raise Refused("what fills a value")
        made.__setstate__(state)
        self.holders += isinstance(made, Array) and made.holds_objects
        if self.holders > 1:  # one within the other ends the process when they are given up
            raise Refused("more than one array of objects")

    def _spend(self, args: Any) -> None:
        """Refuse to hand more to calls than was read: each keeps a copy."""
        for arg in args if type(args) is tuple else (args,):
            for part in (arg, *(arg if type(arg) is tuple else ())):  # a call may hand its arguments to another
                self.spent += len(part) if isinstance(part, (str, bytes, list, tuple, dict)) else 1
        if self.spent > SHARED * self.read + ROOM:
            raise Refused("copies of more than it holds")

    def persistent(self, _: Any) -> None:
        """Take note of numbers beside the pickle."""
        said = self.stack.pop()
        if self.is_newer or type(said) is not tuple or len(said) not in (5, 6):
            raise Refused("what a tensor holds")
        kind, numbers, key, place, count, *view = said
        fits = kind == "storage" and isinstance(numbers, StorageType) and type(key) is str and KEY.fullmatch(key)
        if not (fits and type(place) is str and type(count) is int and count >= 0) or any(view):
            raise Refused("what a tensor holds")
        size = count * numbers.width
        if self.storages.setdefault(key, size) != size:
            raise Refused("what two tensors hold")
        self.stack.append(Storage())


HANDLERS: dict[str, Callable[[Reader, Any], None]] = {
    "MARK": Reader.mark,
    "TUPLE": Reader.tuple_,
    "BINGET": Reader.get,
    "LONG_BINGET": Reader.get,
    "BINPUT": Reader.put,
    "LONG_BINPUT": Reader.put,
    "MEMOIZE": Reader.memoize,
    "APPEND": Reader.append,
    "APPENDS": Reader.appends,
    "SETITEM": Reader.setitem,
    "SETITEMS": Reader.setitems,
    "GLOBAL": Reader.global_,
    "STACK_GLOBAL": Reader.stack_global,
    "REDUCE": Reader.reduce,
    "NEWOBJ": Reader.newobj,
    "BUILD": Reader.build,
    "BINPERSID": Reader.persistent,
}
