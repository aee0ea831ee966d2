"""What several commands do with their options."""

from __future__ import annotations

import os
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError, is_users_fault, nearest, one_line
from ima_yolo.lists import listed
from ima_yolo.plain_files import check_addresses, check_plain


def load_safely() -> None:
    """Make Ultralytics open checkpoints and caches of labels without running their code in this process."""
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")  # which it reads when it is first imported

    from ima_yolo.data_set import guard_caches

    guard_caches()


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
    if "cfg" not in options:
        return options
    from ima_yolo.config import read_yaml  # needs more than a device that runs .onnx files has
    from ima_yolo.recipes import from_recipe

    name = options.pop("cfg")
    if not name:
        raise IMAError("cfg= is empty: give a YAML file, or the name of a recipe such as cfg=paper")
    recipe = from_recipe(read_yaml(recipe_path(str(name))), str(name), options)
    if {"student", "model"} & options.keys():  # two words for one thing
        recipe = {key: value for key, value in recipe.items() if key not in {"student", "model"}}
    return {**recipe, **options}


def whole_number(options: Mapping[str, Any], key: str, default: int, most: int | None = None) -> int:
    """Read a whole number from 1 up, or to `most`.

    Raises:
        IMAError: For anything else.
    """
    value = options.get(key, default)
    if type(value) is not int or value < 1 or (most is not None and value > most):
        raise IMAError(f"{key}={value}: expected a whole number from 1 " + (f"to {most}" if most else "up"))
    return value


def folder_to_write(name: Any) -> Path:
    """Return the folder that `output=` names, which may not be there yet.

    Raises:
        IMAError: If a file is there, or in place of a folder above it, or it cannot be written to.
    """
    output = Path(str(name))
    if any(path.exists() and not path.is_dir() for path in (output, *output.parents)):
        raise IMAError(f"output={output}: expected a folder, a file is there")
    from ima_yolo.files import check_folder

    check_folder(output, f"output={output}")
    return output


def recipe_path(name: str) -> Path:
    """Return the file of a recipe: a path, or the name of one that is installed with the package.

    Raises:
        IMAError: For a name that no recipe has.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    known = {path.stem: path for path in Path(str(files("ima_yolo.cfg"))).glob("*.yaml")}
    if name not in known:
        near = nearest(name, known) or f"; there are {', '.join(sorted(known))}"
        raise IMAError(f"cfg={name}: there is no such recipe{near}; a file of your own ends in .yaml")
    return known[name]


@contextmanager
def faults_of_the_user() -> Iterator[None]:
    """Turn what Ultralytics raises for unusable files and values into one line.

    Raises:
        IMAError: In place of what `is_users_fault` knows.
    """
    try:
        yield
    except IMAError:
        raise
    except AttributeError as error:
        if not _is_of_a_layer(error):
            raise
        raise IMAError(f"the model is not built as an Ultralytics model is ({one_line(error)})") from error
    except Exception as error:
        if not is_users_fault(error):
            raise
        raise IMAError(one_line(error)) from error


@contextmanager
def leaving_nothing(mode: str, task: str, options: Mapping[str, Any]) -> Iterator[None]:
    """Take away the folder for results that Ultralytics makes at once, where nothing was written to it before a fault.

    Args:
        mode: val or predict.
        task: Of the model; the options may name another.
        options: Of the command, as Ultralytics gets them.
    """
    from ultralytics.cfg import get_cfg, get_save_dir

    from ima_yolo.run_folder import check_run

    folder = Path(get_save_dir(get_cfg(overrides={"task": task, **options, "mode": mode})))
    check_run(folder)
    with _not_left_empty(folder):
        yield


@contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """Take away a folder that was made meanwhile, and those above it, where a fault came before any file."""
    from ima_yolo.files import missing_folders, take_away

    made = missing_folders(folder)
    try:
        yield
    except BaseException:
        if not any(path.is_file() for path in folder.rglob("*")):
            take_away(folder, made)
        raise


def _is_of_a_layer(error: AttributeError) -> bool:
    """Whether a layer of PyTorch lacks what it was asked for: so a damaged checkpoint fails."""
    frames = traceback.extract_tb(error.__traceback__)
    return frames[-1].name == "__getattr__" and Path(frames[-1].filename).parts[-3:] == ("nn", "modules", "module.py")


def model_of(options: dict[str, Any]) -> str:
    """Take the model out of the options.

    Raises:
        IMAError: If it is missing, a pipe, or neither here nor among the checkpoints that Ultralytics publishes.
    """
    model = str(options.pop("model", None) or "")
    if not model:
        raise IMAError("model= is missing: give a .pt or .onnx file")
    check_plain(model, "model=")
    check_addresses({"model": model})
    if not Path(model).exists() and (is_onnx(model) or not _is_checkpoint(model)):
        raise IMAError(f"model={model}: no such file")
    return model


def _is_checkpoint(name: str) -> bool:
    """Whether a name that is no path is a checkpoint in Ultralytics' folder, or one that it publishes ("yolo26n")."""
    load_safely()
    from ultralytics.utils.checks import check_model_file_from_stem

    from ima_yolo.host import can_be_had

    return can_be_had(str(check_model_file_from_stem(name)))


def opened(model: str) -> Any:
    """Open a model with Ultralytics, a checkpoint once it was looked through.

    Raises:
        IMAError: If the checkpoint is none, or would run code.
    """
    from ultralytics import YOLO
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.checks import REMOTE_FILE_PREFIXES, check_file, check_model_file_from_stem
    from ultralytics.utils.checks import check_yolov5u_filename as published

    from ima_yolo.export.external import check_alone
    from ima_yolo.host import load_model
    from ima_yolo.students import read_architecture

    if model.lower().startswith(REMOTE_FILE_PREFIXES):
        weights = Path(SETTINGS["weights_dir"])
        with _not_left_empty(weights):
            model = check_file(model, download_dir=weights)
    file = str(check_model_file_from_stem(model))
    file = file if Path(file).exists() else str(published(file, verbose=False))
    if is_pt(file):
        load_model(file, "model", reopened=True)
    elif file.lower().endswith((".yaml", ".yml")):
        read_architecture(file, "model")
    elif is_onnx(file):
        check_alone(Path(file).read_bytes(), file)
    return YOLO(model)


def is_pt(model: str) -> bool:
    """Whether a name is that of a checkpoint, as Ultralytics tells: whatever the case."""
    return model.lower().rpartition(".")[-1] == "pt"


def is_onnx(model: str) -> bool:
    """Whether a name is that of an ONNX file, whatever the case."""
    return model.lower().endswith(".onnx")


def checked_keys(options: Mapping[str, Any], own: Collection[str] = ()) -> None:
    """Refuse keys that nobody knows, values that nobody can mean, and a project that cannot be written to.

    Args:
        options: What is left once the command has taken its own keys out.
        own: Those keys, one of which may have been misspelt.

    Raises:
        IMAError: Naming the nearest valid one, or saying that it belongs to a training.
    """
    from ultralytics.cfg import TASKS

    from ima_yolo.config import own_keys
    from ima_yolo.files import check_folder
    from ima_yolo.preflight import check_keys
    from ima_yolo.ranges import LARGEST, are_sizes, check_indices, check_numbers

    if training := sorted(own_keys() & options.keys()):
        raise IMAError(f"'{training[0]}' is a setting of `ima-yolo train` alone")
    check_keys(options, own)
    if (task := options.get("task")) and str(task) not in TASKS:  # it becomes the name of a folder
        raise IMAError(f"task={task}: expected one of {', '.join(sorted(TASKS))}")
    batch = options.get("batch", 1)  # Ultralytics goes on with 0 and True, and what comes of it are NumPy's warnings
    if isinstance(batch, (int, float)) and (type(batch) is not int or batch < 1):
        raise IMAError(f"batch={batch}: expected a whole number from 1 up")
    if (size := options.get("imgsz")) is not None and not (are_sizes(size, least=1) and len(listed(size)) <= 2):
        raise IMAError(f"imgsz={size}: expected whole pixels from 1 to {LARGEST}, or height and width")
    check_indices(options.get("classes"))
    check_numbers(options)
    check_addresses({key: value for key, value in options.items() if key != "source"})  # cameras have passwords
    if project := options.get("project"):
        check_folder(Path(str(project)), f"project={project}")
