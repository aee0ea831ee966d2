"""Teachers of a user's own: `teacher=package.module:function`, called without arguments, returns one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError, one_line
from ima_yolo.teachers import Teacher, resampled_from

_ATTRIBUTES = {
    "strides": "a tuple of whole numbers, finest first, each once",
    "channels": "a tuple of whole numbers, one for each stride",
    "input_channels": "a whole number from 1 up",
    "name": "a text",
    "class_names": "a dictionary of names by index, or None",
    "predicts": "True or False",
}


def function_teacher(name: str) -> Teacher:
    """Import a function, call it, and check what it returns.

    Args:
        name: "package.module:function"; modules of the current folder are found too.

    Raises:
        IMAError: If it cannot be imported or called, or returns no `Teacher`.
    """
    module, _, function = name.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        build: Any = getattr(import_module(module), function, None)
    except (Exception, SystemExit) as error:  # a script that parses its arguments exits where they are ours
        raise IMAError(f"teacher={name}: {module} cannot be imported ({_said(error)})") from error
    finally:
        sys.path.remove(here)
    if not callable(build):
        raise IMAError(f"teacher={name}: {module} has no function '{function}'")
    try:
        teacher = build()
    except (Exception, SystemExit) as error:
        raise IMAError(f"teacher={name}: {function}() failed ({_said(error)})") from error
    _check_attributes(teacher, name)
    return teacher


def _check_attributes(teacher: Any, name: str) -> None:
    """Refuse an object that is no `Teacher`."""
    missing = [word for word in _ATTRIBUTES if not hasattr(teacher, word)]
    missing += [word for word in ("to", "digest", "__call__") if not callable(getattr(teacher, word, None))]
    if missing:
        raise IMAError(
            f"teacher={name}: returned {type(teacher).__name__}, which lacks {', '.join(missing)}; "
            "expected a Teacher (ima_yolo.teachers), for example a ModuleTeacher"
        )
    strides, channels, names = teacher.strides, teacher.channels, teacher.class_names
    fits = {
        "strides": _whole(strides) and tuple(strides) == tuple(sorted(set(strides))),
        "channels": _whole(channels) and _whole(strides) and len(channels) == len(strides),
        "input_channels": _whole((teacher.input_channels,)),
        "name": isinstance(teacher.name, str) and bool(teacher.name),
        "class_names": names is None or (isinstance(names, Mapping) and all(isinstance(i, int) for i in names)),
        "predicts": isinstance(teacher.predicts, bool),
    }
    for word, fine in fits.items():
        if not fine:
            raise IMAError(f"teacher={name}: {word}={getattr(teacher, word)!r}; expected {_ATTRIBUTES[word]}")
    if (source := resampled_from(teacher)) is not None and source not in strides:
        raise IMAError(
            f"teacher={name}: resampled_from={source!r}; expected one of its strides {list(strides)}, or None"
        )


def _whole(values: Any) -> bool:
    """Whether this is a tuple or list of whole numbers from 1 up, at least one."""
    listed = isinstance(values, (tuple, list)) and bool(values)
    return listed and all(isinstance(value, int) and not isinstance(value, bool) and value > 0 for value in values)


def _said(error: BaseException) -> str:
    return f"it exits with {error.code}" if isinstance(error, SystemExit) else one_line(error)
