"""What a recipe must not decide: a YAML file may come from anywhere, and what it names would be run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ima_yolo.errors import IMAError
from ima_yolo.lists import as_text, listed_files

CARRIED = "ima"  # the argument under which settings travel to the processes of a training on several devices

FOR_THE_USER = ("exist_ok", "output", "resume")  # what is written over, or goes on

OF_A_RUN = ("save_dir", "teacher_digest", "exist_ok", "resume", "cfg")
"""What args.yaml and ima.yaml say of their run: its place, what it saw, wrote over, went on with and was read from."""


def from_recipe(content: Mapping[str, Any], name: str, given: Collection[str], how: str = "add") -> dict[str, Any]:
    """What a file says that a training may take over.

    What a run's own file says of its run ends with that run: a new one is begun.

    Args:
        content: The file's.
        name: The file.
        given: Keys that the user gave beside it, which win.
        how: As of `check_recipe`.

    Raises:
        IMAError: As `check_recipe`.
    """
    left_out = OF_A_RUN if "save_dir" in content else OF_A_RUN[:2]
    recipe = {key: value for key, value in content.items() if key not in left_out}
    check_recipe(recipe, name, given, how)
    recipe.pop("ima_trust", None)
    return recipe


def check_recipe(recipe: Mapping[str, Any], name: str, given: Collection[str], how: str = "add") -> None:
    """Refuse a recipe that would run code (by trust, or a function as teacher), fetch, or say what is written over.

    Args:
        recipe: What the file says.
        name: The file.
        given: Keys that the user gave beside it, which win.
        how: The user may name a function by adding it, or by what else is to be done before.

    Raises:
        IMAError: Naming the file and what to do.
    """
    if CARRIED in recipe:  # what the processes of a training are handed is not checked again
        raise IMAError(f"cfg={name}: '{CARRIED}' is not a setting")
    if recipe.get("cfg"):  # Ultralytics would fetch it, or look for it everywhere
        raise IMAError(f"cfg={name}: it names a recipe itself (cfg); write what that says into one file")
    for key in ("ima_trust", *FOR_THE_USER):
        if recipe.get(key) and (key == "ima_trust" or key not in given):
            raise IMAError(
                f"cfg={name}: {key}={recipe[key]} is taken from the command line or from Python, from no file"
            )
    if "teacher" in given:
        return
    for named in listed_files(as_text(recipe.get("teacher") or "")):
        if ":" in named:
            from ima_yolo.teachers.load import is_function  # needs more than a device that runs .onnx files has

            if is_function(named):
                raise IMAError(f"cfg={name}: it would run its teacher; if that is yours, {how} teacher={named}")
