"""What several commands do with their options."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from ima_yolo.config import read_yaml
from ima_yolo.errors import USER_FAULTS, IMAError, one_line


def load_safely() -> None:
    """Make Ultralytics load checkpoints without running their code; it reads this when it is first imported."""
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")


def switches() -> frozenset[str]:
    """Keys of Ultralytics that are on or off, which `yolo` takes as bare words: `plots` for `plots=True`."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    return frozenset(key for key, value in DEFAULT_CFG_DICT.items() if isinstance(value, bool)) | {"resume"}


def no_bare_words(options: Mapping[str, Any], allowed: Collection[str] = ()) -> dict[str, Any]:
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
    options = dict(options)
    name = options.pop("cfg", None)
    if name is None:
        return options
    recipe = read_yaml(recipe_path(str(name)))
    recipe.pop("save_dir", None)  # in the args.yaml of an earlier run, which would be written over
    if {"student", "model"} & options.keys():  # two words for one thing
        recipe = {key: value for key, value in recipe.items() if key not in {"student", "model"}}
    return {**recipe, **options}


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
