"""YAML files of plain values: no tags, no bombs of aliases, no content that refers to itself."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from ima_yolo.errors import IMAError, one_line

MOST_BYTES = 2**24
MOST_VALUES = 200_000  # once every alias is written out; a data set with 20,000 class names has 40,000
MOST_LEVELS = 200  # of nesting; more would take the parser's stack
MOST_DIGITS = 100  # of a number; the time for "1:1:1...", a number to the base of 60, grows with their square
FASTEST: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where PyYAML was built with it
MOST_DIRECTIVES = 100  # lines such as "%TAG", each of which the parser compares with all before
LARGEST = 2**60  # whole number; multiples of 2**61 - 1 share one hash, and a mapping of such keys takes their square
DIRECTIVE = re.compile("[\r\n\x85\u2028\u2029]%")  # after what ends a line in YAML
MERGE = "tag:yaml.org,2002:merge"


def read_plain(path: Path, role: str) -> Any:
    """Read a YAML file that consists of mappings, lists and plain values.

    Args:
        path: The file.
        role: The key that named it, for the message.

    Raises:
        IMAError: If it is missing, is no YAML, carries tags, or would grow beyond any use.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device may have no end
        raise IMAError(f"{role}={path}: expected a file")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise IMAError(f"{role}={path}: {one_line(error)}") from None
    return parse_plain(content, f"{role}={path}")


def parse_plain(content: bytes, where: str) -> Any:
    """Read YAML that consists of mappings, lists and plain values.

    Args:
        content: UTF-8, of which no more than a byte beyond `MOST_BYTES` needs to be there.
        where: It comes from, for the message.

    Raises:
        IMAError: If it is no YAML, carries tags, or would grow beyond any use.
    """
    if len(content) > MOST_BYTES:
        raise IMAError(f"{where}: larger than {MOST_BYTES >> 20} MiB")
    try:
        text = content.decode("utf-8")
        _check_events(text)
        found = yaml.load(text, Loader=_PlainLoader)
    except IMAError as error:
        raise IMAError(f"{where}: {error}") from None
    except RecursionError:
        raise IMAError(f"{where}: nested too deeply") from None
    except (ValueError, OverflowError, TypeError, AttributeError, LookupError, yaml.YAMLError) as error:
        raise IMAError(f"{where}: {one_line(error)}") from None
    try:
        check_size(found)
    except IMAError as error:
        raise IMAError(f"{where}: {error}") from None
    return found


def _check_events(text: str) -> None:
    """Look through a file without building anything of it.

    Raises:
        IMAError: If it has more values or levels than any file of use.
    """
    if sum(1 for _ in DIRECTIVE.finditer(text)) > MOST_DIRECTIVES:
        raise IMAError(f"more than {MOST_DIRECTIVES} directives")
    values, level = 0, 0
    for event in yaml.parse(text, Loader=FASTEST):
        values += isinstance(event, yaml.NodeEvent)
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if values > MOST_VALUES:
            raise IMAError(f"more than {MOST_VALUES} values")
        if level > MOST_LEVELS:
            raise IMAError("nested too deeply")


class _PlainLoader(FASTEST):
    """The safe loader, with bounds on what little text can make of itself."""

    def __init__(self, text: str) -> None:
        """Begin to read a text."""
        super().__init__(text)
        self._merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Write the mappings that a mapping names under "<<" into it."""
        named = [value for key, value in node.value if key.tag == MERGE]
        for value in named:
            for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(part, yaml.MappingNode):
                    self.flatten_mapping(part)
                    self._merged += 1 + len(part.value)
                if self._merged > MOST_VALUES:
                    raise IMAError(f"more than {MOST_VALUES} values once its aliases are written out")
        super().flatten_mapping(node)


def _number(loader: Any, node: yaml.ScalarNode) -> Any:
    if len(node.value) > MOST_DIGITS:
        raise IMAError(f"a number of more than {MOST_DIGITS} digits")
    number = getattr(loader, f"construct_yaml_{node.tag.rpartition(':')[2]}")(node)
    if isinstance(number, int) and abs(number) > LARGEST:
        raise IMAError(f"a whole number beyond {LARGEST}")
    return number


for _kind in ("int", "float"):
    _PlainLoader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number)


def check_size(content: Any) -> None:
    """Refuse nested mappings, namespaces and lists that share parts so often that no memory would hold what they print.

    Raises:
        IMAError: With the reason alone.
    """
    if _count(content, {}) > MOST_VALUES:
        raise IMAError(f"more than {MOST_VALUES} values once its aliases are written out")


def _count(value: Any, known: dict[int, float]) -> float:
    """How many values there are with every alias written out; infinite where one contains itself."""
    if isinstance(value, SimpleNamespace):
        value = vars(value)
    if not isinstance(value, (dict, list, set, tuple)):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")  # met again before it is counted, it contains itself
        items = value.items() if isinstance(value, dict) else [(item,) for item in value]
        known[id(value)] = 1 + sum(_count(part, known) for item in items for part in item)
    return known[id(value)]
