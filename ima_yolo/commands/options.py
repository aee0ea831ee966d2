"""What several commands do with their options."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError, one_line

# What Ultralytics raises for files and values that a user gave.
USER_FAULTS = (FileNotFoundError, TypeError, ValueError, SyntaxError, AssertionError, RuntimeError, OSError)


def load_safely() -> None:
    """Make Ultralytics load checkpoints without running their code; it reads this when it is first imported."""
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")


def no_bare_words(options: Mapping[str, Any], allowed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the options, with an allowed bare word such as `resume` read as `resume=True`.

    Raises:
        IMAError: For any other word that is no `key=value`.
    """
    read = {key: value for key, value in options.items() if key}
    for word in options.get("", []):
        if word not in allowed:
            raise IMAError(f"'{word}': expected key=value")
        read[word] = True
    return read


def with_recipe(options: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the YAML named by `cfg=` under the options; what stands on the command line wins.

    Raises:
        IMAError: If the recipe cannot be read.
    """
    from ima_yolo.config import read_yaml

    options = dict(options)
    recipe = options.pop("cfg", None)
    return options if recipe is None else {**read_yaml(recipe_path(str(recipe))), **options}


def recipe_path(name: str) -> Path:
    """Return the file of a recipe: a path, or the name of one that is installed with the package."""
    return Path(name) if name.endswith((".yaml", ".yml")) else Path(str(files("ima_yolo.cfg") / f"{name}.yaml"))


@contextmanager
def faults_of_the_user() -> Iterator[None]:
    """Turn what Ultralytics raises for unusable files and values into one line.

    Raises:
        IMAError: In place of any of `USER_FAULTS`.
    """
    try:
        yield
    except IMAError:
        raise
    except USER_FAULTS as error:
        raise IMAError(one_line(error)) from error


def model_of(options: dict[str, Any]) -> str:
    """Take the model out of the options.

    Raises:
        IMAError: If it is missing or no file.
    """
    model = options.pop("model", None)
    if not model:
        raise IMAError("model= is missing: give a .pt or .onnx file")
    if not Path(str(model)).exists():
        raise IMAError(f"model={model}: no such file")
    return str(model)


def checked_keys(options: Mapping[str, Any]) -> None:
    """Refuse keys that neither Ultralytics nor this package knows.

    Raises:
        IMAError: Naming the nearest valid one.
    """
    from ima_yolo.preflight import check_keys

    check_keys(options)
