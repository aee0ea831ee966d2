"""Checks before anything is written: a bad setting or file costs one clear line and leaves no trace."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ultralytics.cfg import get_cfg, get_save_dir
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, SAFE_LOAD
from ultralytics.utils.files import get_latest_run
from ultralytics.utils.patches import imread
from ultralytics.utils.torch_utils import parse_device, select_device

from ima_yolo import checkpoint
from ima_yolo.config import Settings, own_keys, split, validate
from ima_yolo.data_set import ARRAYS, converted, images_in, read_data_set
from ima_yolo.errors import IMAError, nearest, one_line
from ima_yolo.files import check_folder, missing_folders
from ima_yolo.host import is_ultralytics_key, load_model, ultralytics_keys
from ima_yolo.kept import check_kept
from ima_yolo.lists import listed
from ima_yolo.pairing import check_pairs, load_teachers, located, name_the_same, teachers_located
from ima_yolo.plain_files import check_addresses, check_entries, check_plain
from ima_yolo.quantized import need_modelopt
from ima_yolo.ranges import check_classes, check_layers, check_ranges
from ima_yolo.run_folder import check_run
from ima_yolo.students import kind_of_path, load_student, task_of_kind
from ima_yolo.teachers import Teacher
from ima_yolo.trust import trusting


@dataclass(frozen=True)
class Plan:
    """What a training was asked to do, checked.

    Attributes:
        settings: Our keys.
        overrides: Ultralytics' keys.
        teachers: Loaded and frozen.
        made: The folder for results and those above it that are not there yet.
        is_trained: Whether a run is resumed that has all its epochs behind it.
    """

    settings: Settings
    overrides: dict[str, Any]
    teachers: tuple[Teacher, ...]
    made: tuple[Path, ...] = ()
    is_trained: bool = False


def prepare(options: Mapping[str, Any], kind: str | None = None, told: bool = True, loaded: Plan | None = None) -> Plan:
    """Check every key and file of a training.

    Args:
        options: Our keys and Ultralytics', as the user gave them.
        kind: The kind of student that is to be trained, see `ima_yolo.students`; None for any.
        told: Whether settings without effect are named.
        loaded: An earlier plan, whose teachers serve again where these options name the same.

    Raises:
        IMAError: For the first thing that cannot work.
    """
    trust = options.get("ima_trust") is True
    if trust and SAFE_LOAD:
        raise IMAError("ima_trust=True and ULTRALYTICS_SAFE_LOAD=1 contradict each other; unset one of them")
    if trust:
        LOGGER.warning("ima_trust=True: code in the checkpoints of teacher, student and resume is run, if there is any")
    with trusting(trust):
        plan = _prepare(options, kind, loaded)
    if told and not options.get("resume") and plan.settings.without_effect:  # a run's own keys were told when it began
        LOGGER.warning(f"without effect beside the other settings: {', '.join(plan.settings.without_effect)}")
    return plan


def _prepare(options: Mapping[str, Any], kind: str | None, loaded: Plan | None) -> Plan:
    ours, rest = split(options)
    check_keys(rest)
    check_addresses(options)
    if rest.get("mode") not in (None, "train"):
        raise IMAError(f"mode={rest['mode']}: a training is asked for")
    rest.pop("mode", None)
    _check_names(options)
    if ours.get("teacher"):
        ours["teacher"] = teachers_located(ours["teacher"])
    is_trained = False
    if rest.get("resume"):
        settings, rest, is_trained = _resumed(ours, rest)
    else:
        settings = validate(ours)
    rest = _checked_values(rest)
    teachers = _teachers(settings, loaded)
    # a published one is here only now
    settings = settings.model_copy(update={"teacher": teachers_located(settings.teacher)})
    _convert_data(rest)
    data = _check_data(rest, teachers, fetch=not rest.get("resume") or bool(options.get("data")))
    if rest.get("data") and Path(str(rest["data"])).is_file():
        rest["data"] = str(Path(str(rest["data"])).absolute())  # for a run that is resumed from another folder
    if not rest.get("resume"):
        rest["model"] = located(rest.get("model") or "")
        student, found = load_student(rest["model"], data.get("channels", 3))
        task = _check_task(rest, found, kind, data)
        check_layers(rest.get("freeze"), len(student.model))
        check_pairs(student, found, teachers, settings, side_of(rest.get("imgsz")), data)
        args = get_cfg(DEFAULT_CFG_DICT, {"task": task, "mode": "train", **rest})
        folder = Path(get_save_dir(args))
        check_folder(folder, f"project={rest.get('project')}" if rest.get("project") else "results")
        check_run(folder)  # with exist_ok=True it may be there
    if settings.ima_unlabelled:
        _check_unlabelled(settings.ima_unlabelled)
    made = () if rest.get("resume") else missing_folders(folder)
    return Plan(settings, rest, teachers, made, is_trained)


def _teachers(settings: Settings, loaded: Plan | None) -> tuple[Teacher, ...]:
    if loaded is not None and name_the_same(loaded.settings, settings):
        return loaded.teachers
    return load_teachers(settings)


def side_of(imgsz: Any) -> int:
    """Side of the training images in pixels: the longer one of a list, as Ultralytics takes it."""
    return max(imgsz) if isinstance(imgsz, (list, tuple)) else int(imgsz or DEFAULT_CFG_DICT["imgsz"])


def _check_names(options: Mapping[str, Any]) -> None:
    """Refuse models in place of the names of their files."""
    for key in ("teacher", "student", "model"):
        value = options.get(key)
        if not all(isinstance(name, (str, Path)) for name in listed(value or "")):
            raise IMAError(f"{key}=: expected the name of a file, not an object of type {type(value).__name__}")


def student_kind(options: Mapping[str, Any]) -> str:
    """Return the kind of student that a training is about, as far as can be told before its options are checked.

    Args:
        options: Our keys and Ultralytics', as the user gave them.

    Raises:
        IMAError: If there is no such student.
    """
    check_addresses(options)
    with trusting(options.get("ima_trust") is True):
        if options.get("resume"):
            return kind_of_path(str(resume_path(options)))
        _check_names(options)
        return kind_of_path(located(options.get("student") or options.get("model") or ""))


def _check_task(rest: Mapping[str, Any], found: str, kind: str | None, data: Mapping[str, Any]) -> str:
    """Refuse a student of another task than the trainer's, the user's or the data's; return the task."""
    task = task_of_kind(found)
    asked = rest.get("task") or task
    if kind not in (None, found) or asked != task:
        wanted = asked if asked != task else kind
        raise IMAError(f"student={rest['model']}: a model for {found}, but {wanted} is to be trained")
    if task == "pose" and data and "kpt_shape" not in data:
        raise IMAError(f"data={rest['data']}: no kpt_shape (keypoints, values of each), which task pose needs")
    return task


def check_keys(rest: Mapping[str, Any], own: Collection[str] = ()) -> None:
    """Refuse keys that neither Ultralytics nor this package knows; the nearest may be one of a command's `own`."""
    for key in rest:
        if key not in ultralytics_keys() and not is_ultralytics_key(key):
            raise IMAError(f"'{key}' is not a setting{nearest(key, ultralytics_keys() | own_keys() | set(own))}")
    if rest.get("distill_model") is not None:
        raise IMAError("distill_model= is Ultralytics' own distillation; use it or teacher=, not both")


def _resumed(ours: Mapping[str, Any], rest: Mapping[str, Any]) -> tuple[Settings, dict[str, Any], bool]:
    """Settings of the run that is resumed, Ultralytics' keys, and whether all its epochs are done.

    Of our keys only `teacher` may be given anew, for a file that has moved, and `ima_trust`, which is never kept.
    """
    last = resume_path(rest)
    _, saved = load_model(last, "model", reopened=True)
    packed = checkpoint.unpack(saved, last)
    kept = {key: value for key, value in packed["settings"].items() if key != "ima_trust"}
    settings = validate({**kept, **{key: ours[key] for key in ("teacher", "ima_trust") if ours.get(key)}})
    args = check_kept(
        last, saved.get("train_args"), settings, {key for key in ("teacher", "data") if ours.get(key) or rest.get(key)}
    )
    if ignored := sorted(set(ours) - {"teacher", "ima_trust"}):
        LOGGER.warning(f"Resume ignores {ignored}, using the run's own values. Start a new run to change them.")
    folder = Path(rest.get("save_dir") or _run_of(last, args))
    check_run(folder)
    own = folder / "weights"  # another one than that of `last`, where the run's folder is said to lie elsewhere
    others = {path.resolve(): path for path in (own / "last.pt", own / "best.pt", last.with_name("best.pt"))}
    for file, other in others.items():
        if file != last.resolve() and file.exists():
            load_model(other, "resume", reopened=True)  # Ultralytics opens it when the training ends, code and all
    check_folder(folder, f"resume={last}")
    rest = {"split": args["split"], **rest, "resume": str(last), "save_dir": str(folder)}
    rest["data"] = rest.get("data") or args["data"]
    return settings, rest, checkpoint.is_trained(saved)


def _run_of(last: Path, args: Mapping[str, Any]) -> Path:
    """Folder of the run that a checkpoint belongs to: where it lies now, for a run that was moved or copied."""
    if last.resolve().parent.name != "weights":  # what it says of its run may be anybody's word, and files lie there
        raise IMAError(
            f"resume: {last} lies in no run's folder; give save_dir=, the folder that the run is to go on in"
        )
    saved = Path(args["save_dir"] or last.absolute().parents[1])
    here = last.resolve().parents[1]
    if here == saved.resolve():
        return saved
    LOGGER.warning(f"The run was begun in {saved} and goes on in {here}, where its checkpoint lies")
    return here


def resume_path(rest: Mapping[str, Any]) -> Path:
    """Find the checkpoint that `resume=True model=last.pt`, `resume=last.pt` or a bare `resume=True` mean.

    A run's folder stands for its last.pt. An architecture, which a recipe may name, says nothing of where a run lies.

    Raises:
        IMAError: If there is none.
    """
    wanted = rest["resume"]
    if wanted is True:
        model = rest.get("model") or ""
        wanted = get_latest_run() if not model or str(model).endswith((".yaml", ".yml")) else model
    last = Path(str(wanted or ""))
    if last.is_dir():
        last /= "weights/last.pt"
    if not last.is_file():
        if last.name == "last.pt" and (last.parents[1] / "args.yaml").is_file():
            raise IMAError(f"resume: '{last.parents[1]}' was stopped before its first checkpoint; start it again")
        raise IMAError(f"resume: no checkpoint at '{wanted}'; give it as model=runs/.../weights/last.pt")
    return last


def _checked_values(rest: Mapping[str, Any]) -> dict[str, Any]:
    """Let Ultralytics check its own values before it makes a folder, and check what it finds out later."""
    rest = dict(rest)
    try:
        checked = get_cfg(DEFAULT_CFG_DICT, rest)
    except (TypeError, ValueError, SyntaxError, ImportError) as error:
        raise IMAError(one_line(error)) from error
    if check_device(checked.device).type == "cpu" and checked.amp == "bf16":
        raise IMAError("amp=bf16: Ultralytics has mixed precision on GPUs alone")
    check_ranges(checked)
    if checked.quantize == 8:
        check_quantize(checked.device)
    if isinstance(checked.pretrained, (str, Path)):
        load_model(checked.pretrained, "pretrained", reopened=True)
    return rest


def check_quantize(device: Any) -> None:
    """Refuse to train for int8 on several devices, and without what Ultralytics would install in the middle of it.

    The adapters join the student after its layers were quantized, when it is spread over the devices already.

    Args:
        device: As in `yolo train`.

    Raises:
        IMAError: Saying what is in the way.
    """
    if "," in str(device):
        raise IMAError(f"quantize=8 with a teacher takes one device, and device={device} names several")
    need_modelopt("quantize=8")


def check_device(device: Any) -> torch.device:
    """Find a device, or refuse one that is not there.

    Args:
        device: As in `yolo train`.

    Raises:
        IMAError: If Ultralytics cannot use it.
    """
    try:
        found: torch.device = select_device(parse_device(device), verbose=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise IMAError(one_line(error)) from error
    return found


def _convert_data(rest: dict[str, Any]) -> None:
    """Put the YAML file of a data set in place of what Ultralytics converts to one, so that it is checked as well."""
    data = rest.get("data")
    if not data:
        raise IMAError("data= is missing: give a data set's YAML file, for example data=my.yaml")
    if isinstance(data, (list, tuple)):
        raise IMAError("data= is a list: train on one data set at a time, or call YOLO(...).train in Python")
    given = {**DEFAULT_CFG_DICT, **rest}
    rest["data"] = converted(str(data), given["fraction"], given["split"])


def _check_data(rest: Mapping[str, Any], teachers: Sequence[Teacher], fetch: bool) -> dict[str, Any]:
    """Refuse data that is missing, empty, or not to be fetched; warn where a teacher was trained on other classes.

    Returns:
        The data set as Ultralytics reads it.
    """
    data = rest["data"]
    found = read_data_set(str(data), rest.get("split") or "", fetch)
    for part in ("train", "val"):
        if next(images_in(found[part] or []), None) is None:
            raise IMAError(f"data={data}: no images for '{part}' in {found[part] or 'an empty list'}")
    check_classes(rest.get("classes"), len(found["names"]))
    if rest.get("single_cls"):
        found["names"] = {0: "item"}  # as Ultralytics' trainer renames them
    names = {int(index): str(name) for index, name in found["names"].items()}
    for teacher in teachers:
        if teacher.class_names not in (None, names):
            LOGGER.warning(
                f"{teacher.name} was trained on other classes than {data}; features need none, so it can teach"
            )
    return found


def _check_unlabelled(folder: str) -> None:
    """Refuse a folder without an image that can be read; the first such one is enough."""
    check_plain(folder, "ima_unlabelled=")
    try:
        found = list(images_in(folder))
    except UnicodeDecodeError:  # a file is read as a list of images
        raise IMAError(
            f"ima_unlabelled={folder}: expected a folder of images, or a text file that lists them"
        ) from None
    if not found:
        fault = "no images in this folder" if Path(folder).exists() else "no such folder"
        raise IMAError(f"ima_unlabelled={folder}: {fault}")
    for place in {file.parent for file in found}:  # a list may name files anywhere
        check_entries(place, ARRAYS)
    if all(imread(str(file)) is None for file in found):
        raise IMAError(f"ima_unlabelled={folder}: none of its {len(found)} images can be read")
