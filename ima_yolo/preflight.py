"""Checks before anything is written: a bad setting or file costs one clear line and leaves no trace."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, SETTINGS
from ultralytics.utils.files import get_latest_run

from ima_yolo import checkpoint
from ima_yolo.config import Settings, nearest, own_keys, split, validate
from ima_yolo.errors import IMAError
from ima_yolo.host import DISTILLED_TASKS, check_architecture, is_ultralytics_key, load_model, task_of, ultralytics_keys
from ima_yolo.teachers import Teacher
from ima_yolo.teachers.yolo import YOLOTeacher


@dataclass(frozen=True)
class Plan:
    """What a training was asked to do, checked.

    Attributes:
        settings: Our keys.
        overrides: Ultralytics' keys.
        teacher: Loaded and frozen.
    """

    settings: Settings
    overrides: dict[str, Any]
    teacher: Teacher


def prepare(options: Mapping[str, Any]) -> Plan:
    """Check every key and file of a training.

    Args:
        options: Our keys and Ultralytics', as the user gave them.

    Raises:
        IMAError: For the first thing that cannot work.
    """
    ours, rest = split(options)
    check_keys(rest)
    if rest.get("resume"):
        settings, rest = _resumed(ours, rest)
    else:
        settings = validate(ours)
        _check_student(rest.get("model"))
    _check_values(rest)
    teacher = YOLOTeacher(settings.teacher, settings.ima_teacher_conf)
    _check_data(rest.get("data"), teacher)
    _check_writable(rest.get("project"))
    if settings.without_effect:
        LOGGER.warning(f"without effect with ima_loss={settings.ima_loss}: {', '.join(settings.without_effect)}")
    return Plan(settings, rest, teacher)


def check_keys(rest: Mapping[str, Any]) -> None:
    """Refuse keys that neither Ultralytics nor this package knows."""
    for key in rest:
        if key not in ultralytics_keys() and not is_ultralytics_key(key):
            raise IMAError(f"'{key}' is not a setting{nearest(key, ultralytics_keys() | own_keys())}")
    if rest.get("distill_model") is not None:
        raise IMAError("distill_model= is Ultralytics' own distillation; use it or teacher=, not both")


def _resumed(ours: Mapping[str, Any], rest: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Settings of the run that is resumed; of ours only `teacher` may be given anew, for a file that has moved."""
    last = resume_path(rest)
    _, saved = load_model(last, "model")
    packed = checkpoint.unpack(saved, last)
    settings = validate({**packed["settings"], **{key: ours[key] for key in ("teacher",) if ours.get(key)}})
    if ignored := sorted(set(ours) - {"teacher"}):
        LOGGER.warning(f"Resume ignores {ignored}, using the run's own values. Start a new run to change them.")
    return settings, {**rest, "resume": str(last), "data": rest.get("data") or saved["train_args"]["data"]}


def resume_path(rest: Mapping[str, Any]) -> Path:
    """Find the checkpoint that `resume=True model=last.pt`, `resume=last.pt` or a bare `resume=True` mean.

    Raises:
        IMAError: If there is none.
    """
    model = str(rest.get("model") or "")
    wanted = model if rest["resume"] is True and model.endswith(".pt") else rest["resume"]
    if wanted is True:
        wanted = get_latest_run()
    if not wanted or not Path(str(wanted)).is_file():
        raise IMAError(f"resume: no checkpoint at '{wanted}'; give it as model=runs/.../weights/last.pt")
    return Path(str(wanted))


def _check_student(model: Any) -> None:
    """Refuse a student that is missing, damaged, unsafe, or of a task without a feature pyramid."""
    if model is None or not str(model):
        raise IMAError("student= is missing: give a checkpoint or an architecture, for example student=yolo26n.pt")
    path = str(model)
    if path.endswith(".pt"):
        student, _ = load_model(path, "student")
        if (task := task_of(student)) not in DISTILLED_TASKS:
            raise IMAError(f"student={path}: a model for {task}; this version distils {', '.join(DISTILLED_TASKS)}")
    elif path.endswith((".yaml", ".yml")):
        check_architecture(path)
    else:
        raise IMAError(f"student={path}: expected a checkpoint (.pt) or an architecture (.yaml)")


def _check_values(rest: Mapping[str, Any]) -> None:
    """Let Ultralytics check its own values, before it makes a folder."""
    try:
        get_cfg(DEFAULT_CFG_DICT, dict(rest))
    except (TypeError, ValueError, SyntaxError) as error:
        raise IMAError(" ".join(str(error).split())) from error
    if rest.get("quantize") == 8:
        raise IMAError("quantize=8 changes the student's layers while it trains and cannot be combined with a teacher")
    epochs = rest.get("epochs", 1)
    if isinstance(epochs, int) and epochs < 1:
        raise IMAError(f"epochs={epochs}: must be at least 1")


def _check_data(data: Any, teacher: Teacher) -> None:
    """Refuse data that is missing or empty; warn where its classes are not the teacher's."""
    if not data:
        raise IMAError("data= is missing: give a data set's YAML file, for example data=my.yaml")
    try:
        found = check_det_dataset(str(data))
    except Exception as error:
        raise IMAError(f"data={data}: {' '.join(str(error).split())}") from error
    for part in ("train", "val"):
        if next(images_in(found[part]), None) is None:
            raise IMAError(f"data={data}: no images for '{part}' in {found[part]}")
    names = {int(index): str(name) for index, name in found["names"].items()}
    if teacher.class_names is not None and teacher.class_names != names:
        LOGGER.warning(
            f"The classes of {teacher.name} are not those of {data}; features need no classes, so it teaches on"
        )


def images_in(places: str | list[str]) -> Iterator[Path]:
    """Images of a part of a data set: folders, searched through, and text files that list paths.

    Args:
        places: What Ultralytics' resolved data has under `train` or `val`.
    """
    for place in [places] if isinstance(places, str) else places:
        path = Path(place)
        if path.is_file():
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            yield from (path.parent / line if line.startswith("./") else Path(line) for line in lines if line)
        elif path.is_dir():
            yield from sorted(file for file in path.rglob("*.*") if file.suffix[1:].lower() in IMG_FORMATS)


def _check_writable(project: Any) -> None:
    """Refuse a project folder that cannot be made or written to."""
    folder = Path(str(project)) if project else Path(SETTINGS["runs_dir"])
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise IMAError(f"project={folder}: cannot write to {existing} ({error.strerror})") from error
