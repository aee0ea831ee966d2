"""The command line: `ima-yolo COMMAND key=value ...`. A command's imports happen when it runs."""

from __future__ import annotations

import ast
import errno
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError, is_full_disk, nearest, one_line

Options = dict[str, Any]

# command -> (module, function, what it does)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "train": ("ima_yolo.commands.train", "train", "train a student with a teacher"),
    "val": ("ima_yolo.commands.run", "val", "measure the accuracy of a .pt or .onnx model on a data set"),
    "predict": ("ima_yolo.commands.run", "predict", "detect in images; an .onnx model runs without torch"),
    "export": ("ima_yolo.commands.export", "export", "write a model as ONNX, checked against torch on real images"),
    "benchmark": (
        "ima_yolo.commands.benchmark",
        "benchmark",
        "measure an .onnx model's speed and memory, beside Ultralytics'",
    ),
    "compare": (
        "ima_yolo.commands.experiment",
        "compare",
        "train several arms under the same conditions and report what differs",
    ),
    "teachers": (
        "ima_yolo.commands.teachers",
        "teachers",
        "look at several teachers for a student before any training",
    ),
    "ablate": (
        "ima_yolo.commands.experiment",
        "ablate",
        "the paper's table, or the readings of one step, as a comparison",
    ),
    "sweep": ("ima_yolo.commands.experiment", "sweep", "train settings over a space, as a grid or by Optuna"),
    "report": ("ima_yolo.commands.experiment", "report", "write the report of a comparison or sweep again"),
    "demo": (
        "ima_yolo.commands.demo",
        "demo",
        "the whole line on a drawn data set, in minutes, without a download",
    ),
    "cfg": ("ima_yolo.commands.info", "cfg", "print every setting with its default, or a recipe: `ima-yolo cfg paper`"),
    "help": ("ima_yolo.commands.info", "help_page", "print this page, or that of a command: `ima-yolo help train`"),
    "version": ("ima_yolo.commands.info", "version", "print the versions in use"),
}

OF_STUDIES = ("compare", "ablate", "sweep")
TASKS = {"detect", "segment", "semantic", "pose", "obb", "classify"}
"""Words that `yolo` takes before the command."""

OF_EXTRAS = {
    "cv2",
    "matplotlib",
    "onnx",
    "onnxslim",
    "pydantic",
    "PIL",
    "scipy",
    "torch",
    "torchvision",
    "ultralytics",
    "yaml",
}
LONGEST = 1000  # characters of a message
# Another kind of file than was expected, or no permission: the user can mend that.
NOT_OURS = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
HOW_TO_INSTALL = (
    "this command needs `pip install '.[train]'` where IMA-YOLO was cloned; '.[edge]' is for running .onnx files alone"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: Words after the program's name; those of the process if None.

    Returns:
        Exit code: 0, 1 where part of the work failed, 2 for a mistake in settings or files, 130 on interruption.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _print_anything()
    try:
        command, options = parse(words)
        code = command(options)
        sys.stdout.flush()  # while an error can still be told
        return code
    except IMAError as error:
        if os.environ.get("IMA_TRACEBACK"):
            raise
        return _refuse(one_line(error))
    except BrokenPipeError:  # as of `ima-yolo cfg | head`: nobody is left to read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python says so as it ends
        return 1
    except OSError as error:
        if os.environ.get("IMA_TRACEBACK"):
            raise
        if is_full_disk(error) or error.errno in NOT_OURS:
            return _refuse(one_line(error))
        if error.errno != errno.ENAMETOOLONG:
            raise
        return _refuse(one_line(f"{error.filename}: this name is too long for a file"))
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in OF_EXTRAS or os.environ.get("IMA_TRACEBACK"):
            raise
        return _refuse(f"{package} is not installed; {HOW_TO_INSTALL}")
    except KeyboardInterrupt:
        goes_on = "; the same command goes on where it was" if words and words[0] in OF_STUDIES else ""
        print(f"ima-yolo: interrupted{goes_on}", file=sys.stderr)
        return 130


def _print_anything() -> None:
    """Let names that the terminal's encoding lacks be spelt out, and what the shell closed swallow what is said."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _refuse(reason: str) -> int:
    shown = reason if len(reason) <= LONGEST else f"{reason[: LONGEST // 2]} ... {reason[-LONGEST // 2 :]}"
    print(f"ima-yolo: {shown}", file=sys.stderr)
    return 2


def parse(words: Sequence[str]) -> tuple[Callable[[Options], int], Options]:
    """Find the command and read its options.

    Args:
        words: For example ["train", "teacher=a.pt", "epochs=3"].

    Returns:
        The function to call and its options; words that are no `key=value` are collected under "".

    Raises:
        IMAError: If there is no such command.
    """
    if not words or words[0] in {"-h", "--help"}:
        return _function("help"), {}
    name = {"--version": "version"}.get(words[0], words[0])
    if name in TASKS and len(words) > 1 and words[1] in COMMANDS:
        raise IMAError(f"'{name}': the model tells the task; type `ima-yolo {words[1]} ...`")
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise IMAError(f"'{name}' is not a command{nearest(name, COMMANDS) or f'; commands: {known}'}")
    if any(word in {"-h", "--help"} for word in words[1:]):
        return _function("help"), {"": [name]}
    return _function(name), read_options(words[1:])


def read_options(words: Sequence[str]) -> Options:
    """Turn `key=value` words into a dictionary.

    Raises:
        IMAError: For a key that is given twice or empty.
    """
    options: Options = {}
    bare: list[str] = []
    for word in _joined(words):
        key, equals, text = word.lstrip("-").partition("=")
        if not equals:
            bare.append(word)
        elif not key or key in options:
            raise IMAError(f"'{word}': " + ("a key is given twice" if key else "expected key=value"))
        else:
            options[key] = value_of(text)
    return {**options, "": bare} if bare else options


def _joined(words: Sequence[str]) -> list[str]:
    """Join "epochs = 3", "epochs= 3" and "epochs =3" into one word, as `yolo` does."""
    joined: list[str] = []
    for word in words:
        if joined and (word.startswith("=") or (joined[-1].endswith("=") and "=" not in word)):
            joined[-1] += word
        else:
            joined.append(word)
    return joined


def value_of(text: str) -> Any:
    """Read a value as `yolo` does: none, booleans in any case, Python literals, and anything else as text."""
    lowered = text.lower()
    if lowered in {"none", "true", "false"}:
        return {"none": None, "true": True, "false": False}[lowered]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SyntaxWarning)  # of "3in1", which is text all the same
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _function(name: str) -> Callable[[Options], int]:
    module, function, _ = COMMANDS[name]

    def run(options: Options) -> int:
        return int(getattr(import_module(module), function)(options) or 0)

    return run
