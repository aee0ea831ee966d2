"""Lists as users write them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def listed(given: Any) -> list[Any]:
    """Values that were given with commas between them ("a, b"), as a list, or as one value.

    Words come without blanks around them; an empty place between two commas stays, as "".
    """
    if isinstance(given, str):
        return [word.strip() for word in given.split(",")]
    return list(given) if isinstance(given, Sequence) else [given]
