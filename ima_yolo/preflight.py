"""Checks before anything is written: a bad setting or file costs one clear line and leaves no trace."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset
from ultralytics.nn.tasks import BaseModel
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER
from ultralytics.utils.checks import check_model_file_from_stem
from ultralytics.utils.files import get_latest_run
from ultralytics.utils.torch_utils import parse_device, select_device

from ima_yolo import checkpoint
from ima_yolo.config import Settings, own_keys, split, validate
from ima_yolo.errors import IMAError, nearest, one_line
from ima_yolo.host import (
    DETECTION_HEADS,
    build_model,
    check_detector,
    is_ultralytics_key,
    load_model,
    probe,
    ultralytics_keys,
)
from ima_yolo.teachers import Teacher, shared_classes
from ima_yolo.teachers.load import has_weights, is_file, load_teacher
from ima_yolo.teachers.view import Input, View, fit

OPTIMIZERS = {"auto", "sgd", "musgd", "adam", "adamax", "adamw", "nadam", "radam", "rmsprop"}


@dataclass(frozen=True)
class Plan:
    """What a training was asked to do, checked.

    Attributes:
        settings: Our keys.
        overrides: Ultralytics' keys.
        teachers: Loaded and frozen.
    """

    settings: Settings
    overrides: dict[str, Any]
    teachers: tuple[Teacher, ...]


def prepare(options: Mapping[str, Any]) -> Plan:
    """Check every key and file of a training.

    Args:
        options: Our keys and Ultralytics', as the user gave them.

    Raises:
        IMAError: For the first thing that cannot work.
    """
    ours, rest = split(options)
    check_keys(rest)
    if ours.get("teacher"):
        ours["teacher"] = _teachers_located(ours["teacher"])
    if rest.get("resume"):
        settings, rest = _resumed(ours, rest)
    else:
        settings = validate(ours)
    rest = _checked_values(rest)
    teachers = load_teachers(settings)
    data = _check_data(rest, teachers)
    if not rest.get("resume"):
        rest["model"] = _located(rest.get("model") or "")
        _check_match(_student(rest["model"], data), teachers, settings, int(rest.get("imgsz") or 640), data)
        _check_heads(settings, teachers, data)
    _check_writable(rest)
    if settings.without_effect:
        kind = f"ima_loss={settings.ima_loss} ima_weight={settings.ima_weight}"
        LOGGER.warning(f"without effect with {kind}: {', '.join(settings.without_effect)}")
    return Plan(settings, rest, teachers)


def _located(model: Any) -> str:
    """Name a model as Ultralytics would find it, "yolo26n" too, and so that it is found from another folder as well."""
    path = str(check_model_file_from_stem(str(model)))
    return str(Path(path).absolute()) if Path(path).is_file() else path


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


def _student(path: str, data: Mapping[str, Any]) -> BaseModel:
    """Load or build the student.

    Raises:
        IMAError: If it is missing, damaged, unsafe, or of a kind that is not distilled.
    """
    if not path:
        raise IMAError("student= is missing: give a checkpoint or an architecture, for example student=yolo26n.pt")
    if path.endswith(".pt"):
        student, _ = load_model(path, "student")
        check_detector(student, f"student={path}")
        return student
    if path.endswith((".yaml", ".yml")):
        return build_model(path, data.get("channels", 3))
    raise IMAError(f"student={path}: expected a checkpoint (.pt) or an architecture (.yaml)")


def load_teachers(settings: Settings) -> tuple[Teacher, ...]:
    """Load the teachers that the settings name.

    Raises:
        IMAError: If one cannot be used.
    """
    names = settings.teachers
    weights: tuple[str | None, ...] = settings.ima_teacher_weights or (None,)
    if len(weights) == 1:  # one value is meant for those that have no weights of their own
        weights = tuple(None if has_weights(name) and len(names) > 1 else weights[0] for name in names)
    return tuple(
        load_teacher(name, None if own == "none" else own, settings.ima_teacher_conf)
        for name, own in zip(names, weights, strict=True)
    )


def fit_teachers(
    settings: Settings, teachers: Sequence[Teacher], strides: Sequence[int], channels: int, imgsz: int
) -> tuple[View, ...]:
    """Match each teacher with a student.

    Args:
        settings: What the user chose.
        teachers: Loaded and frozen.
        strides: The student's.
        channels: Of the data's images.
        imgsz: Side of the student's images in pixels.

    Raises:
        IMAError: If one does not match.
    """
    shown = Input((settings.ima_teacher_imgsz or imgsz) / imgsz, settings.ima_teacher_channels)
    return tuple(fit(teacher, strides, channels, settings.ima_levels, shown) for teacher in teachers)


def _teachers_located(named: Any) -> str:
    """Name each teacher that is a file so that it is found from another folder as well."""
    listed = named if isinstance(named, (list, tuple)) else str(named).split(",")
    names = (str(name).strip() for name in listed)
    return ",".join(_located(name) if name and is_file(name) else name for name in names)


def _check_match(
    student: BaseModel, teachers: Sequence[Teacher], settings: Settings, imgsz: int, data: Mapping[str, Any]
) -> None:
    """Refuse a pair that shares no level, or not one that was asked for, or whose heads have different cells."""
    strides = probe(student, int(student.yaml.get("channels", 3))).strides
    views = fit_teachers(settings, teachers, strides, data.get("channels", 3), imgsz)
    for view in views:
        same_cells = strides == view.teacher.strides and settings.ima_teacher_imgsz in (None, imgsz)
        if settings.needs_predictions and not same_cells:
            own = list(view.teacher.strides)
            size = f" of an image of {settings.ima_teacher_imgsz} px" if settings.ima_teacher_imgsz else ""
            raise IMAError(
                f"ima_cls, ima_box: the heads have different cells, at strides {list(strides)} and {own}{size}"
            )


def _check_heads(settings: Settings, teachers: Sequence[Teacher], data: Mapping[str, Any]) -> None:
    """Refuse a teacher whose head cannot say what a setting asks for."""
    asks = settings.needs_confidence or settings.needs_teacher_boxes or settings.needs_predictions
    for teacher in teachers:
        if asks and not teacher.predicts:
            raise IMAError(
                f"teacher={teacher.name}: ima_cls, ima_box, ima_objects=teacher and ima_boxes=teacher read the head of "
                f"an Ultralytics detector ({', '.join(DETECTION_HEADS)}), which it has not"
            )
        if settings.needs_predictions and data:
            shared_classes(teacher, data["names"])


def _checked_values(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Let Ultralytics check its own values before it makes a folder, and check what it finds out later.

    Returns:
        The keys, with `compile` off.
    """
    rest = dict(rest)
    try:
        checked = get_cfg(DEFAULT_CFG_DICT, rest)
        select_device(parse_device(checked.device), verbose=False)
    except (TypeError, ValueError, SyntaxError) as error:
        raise IMAError(one_line(error)) from error
    if checked.task not in (None, "detect"):
        raise IMAError(f"task={checked.task}: this version distils task=detect")
    if str(checked.optimizer).lower() not in OPTIMIZERS:
        raise IMAError(f"optimizer={checked.optimizer}: expected one of {', '.join(sorted(OPTIMIZERS))}")
    if checked.quantize == 8:
        raise IMAError("quantize=8 changes the student's layers while it trains and cannot be combined with a teacher")
    if checked.epochs < 1:
        raise IMAError(f"epochs={checked.epochs}: must be at least 1")
    if isinstance(checked.pretrained, (str, Path)):
        load_model(checked.pretrained, "pretrained")
    if checked.compile:
        LOGGER.warning("compile= hides the feature maps from the distillation and is switched off")
        rest["compile"] = False
    return rest


def _check_data(rest: Mapping[str, Any], teachers: Sequence[Teacher]) -> dict[str, Any]:
    """Refuse data that is missing or empty; warn where its classes are not a teacher's.

    Returns:
        The data set as Ultralytics reads it; nothing for an ndjson file, which Ultralytics converts when it trains.
    """
    data = rest.get("data")
    if not data:
        raise IMAError("data= is missing: give a data set's YAML file, for example data=my.yaml")
    if isinstance(data, (list, tuple)):
        raise IMAError("data= is a list: train on one data set at a time, or call YOLO(...).train in Python")
    if str(data).endswith(".ndjson"):
        return {}
    try:
        found: dict[str, Any] = check_det_dataset(str(data), split=rest.get("split") or "")
    except Exception as error:
        raise IMAError(f"data={data}: {one_line(error)}") from error
    for part in ("train", "val"):
        if next(images_in(found[part]), None) is None:
            raise IMAError(f"data={data}: no images for '{part}' in {found[part]}")
    names = {int(index): str(name) for index, name in found["names"].items()}
    for teacher in teachers:
        if teacher.class_names not in (None, names):
            LOGGER.warning(
                f"{teacher.name} was trained on other classes than {data}; features need none, so it can teach"
            )
    return found


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


def _check_writable(rest: Mapping[str, Any]) -> None:
    """Refuse a folder for results that cannot be made or written to."""
    folder = Path(get_save_dir(get_cfg(DEFAULT_CFG_DICT, {"task": "detect", "mode": "train", **rest}))).absolute()
    existing = folder
    while not existing.exists():
        existing = existing.parent
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise IMAError(f"project={rest.get('project')}: cannot write to {existing} ({error.strerror})") from error
