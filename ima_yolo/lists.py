"""Lists as users write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def listed(given: Any) -> list[Any]:
    """Values that were given with commas between them ("a, b"), as a list, or as one value.

    Words come without blanks around them; an empty place between two commas stays, as "".
    """
    if isinstance(given, str):
        return [word.strip() for word in given.split(",")]
    return list(given) if isinstance(given, Sequence) else [given]


def as_text(given: Any) -> str:
    """A list as it would be typed, "a,b"; anything else as text."""
    return ",".join(map(str, given)) if isinstance(given, (list, tuple)) else str(given)


def as_typed(value: Any) -> str:
    """The value of a key as the command line reads it: None is typed "none", and a list, unlike "a,b", in brackets."""
    if isinstance(value, list):
        return repr(value)
    return "none" if value is None else as_text(value)


def are_distinct(values: Sequence[Any]) -> bool:
    """Whether no two values are equal, as 1 and 1.0 are, or spelt alike, as 1 and "1" are."""
    return not any(
        value == other or str(value) == str(other) for place, value in enumerate(values) for other in values[:place]
    )


def listed_files(given: Any) -> list[str]:
    """The same for names of files, which may hold commas: as many words as possible make up a file that is there."""
    words = given.split(",") if isinstance(given, str) else None
    if words is None:
        return [str(name).strip() for name in listed(given)]
    found: list[str] = []
    while words:
        ends = (end for end in range(len(words), 1, -1) if Path(",".join(words[:end]).strip()).is_file())
        end = next(ends, 1)
        found.append(",".join(words[:end]).strip())
        words = words[end:]
    return found
