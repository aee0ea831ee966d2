"""The one error that a user can mend, and what its messages share. Standard library only."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from difflib import get_close_matches


class IMAError(ValueError):
    """Raised where a setting, file or combination given by the user cannot be used.

    The message is a single line that names the file or key, what was expected, and what to do.
    """


# What Ultralytics raises for files and values that a user gave.
USER_FAULTS = (
    ArithmeticError,
    AssertionError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def is_users_fault(error: BaseException) -> bool:
    """Whether an error is one of `USER_FAULTS`, or OpenCV's, which is raised for pictures of sizes that cannot be."""
    return isinstance(error, USER_FAULTS) or type(error).__module__ == "cv2"


COLOUR = re.compile(r"\x1b\[[\d;]*m")
# Name and password in an address; one that went through a path has one "/", and the letter of a drive is no address.
SECRET = re.compile(r"(?:(?<=://)|(?<=\w\w:/)(?!/))[^/\s]+(?=@)")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def is_full_disk(error: BaseException) -> bool:
    """Whether a file could not be written for want of space; PyTorch says so in words of its own."""
    return getattr(error, "errno", None) in NO_SPACE or "PytorchStreamWriter failed" in str(error)


def closest(word: str, valid: Iterable[str]) -> str | None:
    """Return the valid word that a misspelt one most likely means, if any comes near."""
    return next(iter(get_close_matches(word, list(valid), n=1)), None)


def nearest(key: str, valid: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest valid key, or an empty string."""
    found = closest(key, valid)
    return f" (did you mean '{found}'?)" if found else ""


def one_line(error: BaseException | str) -> str:
    """Return an exception's text as one line, without Ultralytics' ornament; its type where it has no text.

    What a terminal would not print but obey, in a name that comes from a file for example, is spelt out; passwords
    in addresses are not shown.
    """
    text = " ".join(COLOUR.sub("", str(error)).replace("ERROR ❌️", "").split()) or type(error).__name__
    text = SECRET.sub("***", text)
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
