"""What a recipe must not decide: a YAML file may come from anywhere, and what it names would be run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ima_yolo.errors import IMAError
from ima_yolo.lists import as_text, listed_files

CARRIED = "ima"  # the argument under which settings travel to the processes of a training on several devices


def check_recipe(recipe: Mapping[str, Any], name: str, given: Collection[str], how: str = "add") -> None:
    """Refuse a recipe that would run code (trust checkpoints, make a function the teacher), fetch, or write over a run.

    Args:
        recipe: What the file says.
        name: The file.
        given: Keys that the user gave beside it, which win.
        how: A function becomes the teacher where the user names it: "add", or what else is to be done before.

    Raises:
        IMAError: Naming the file and what to do.
    """
    if CARRIED in recipe:  # what the processes of a training are handed is not checked again
        raise IMAError(f"cfg={name}: '{CARRIED}' is not a setting")
    if recipe.get("cfg"):  # Ultralytics would fetch it, or look for it everywhere
        raise IMAError(f"cfg={name}: it names a recipe itself (cfg); write what that says into one file")
    for key in ("ima_trust", "exist_ok"):  # whose results are written over is for the user to say, too
        if recipe.get(key):
            raise IMAError(f"cfg={name}: {key}=True is taken from the command line or from Python, from no file")
    if "teacher" in given:
        return
    for named in listed_files(as_text(recipe.get("teacher") or "")):
        if ":" in named:
            from ima_yolo.teachers.load import is_function  # needs more than a device that runs .onnx files has

            if is_function(named):
                raise IMAError(f"cfg={name}: it would run its teacher; if that is yours, {how} teacher={named}")
