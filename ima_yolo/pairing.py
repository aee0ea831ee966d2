"""Who teaches whom: the teachers that the settings name, fitted to a student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ultralytics.nn.tasks import BaseModel
from ultralytics.utils.checks import check_model_file_from_stem

from ima_yolo.config import Settings
from ima_yolo.errors import IMAError
from ima_yolo.host import DETECTION_HEADS, local_file, probe
from ima_yolo.lists import listed_files
from ima_yolo.teachers import Teacher, shared_classes
from ima_yolo.teachers.load import has_weights, is_file, load_teacher
from ima_yolo.teachers.view import Input, View, fit


def located(model: Any) -> str:
    """Name a model as Ultralytics would find it, "yolo26n" too, and so that it is found from another folder as well."""
    path = str(check_model_file_from_stem(str(model)))
    found = local_file(path)
    return path if found is None else str(found.absolute())


def teachers_located(named: Any) -> str:
    """Do the same for each teacher that is a file; several are separated by commas, or a list."""
    names = listed_files(named)
    return ",".join(located(name) if name and is_file(name) else name for name in names)


def is_one_checkpoint(named: str) -> bool:
    """Whether what was given as teacher names a single checkpoint of Ultralytics, be it here or elsewhere."""
    names = listed_files(named)
    return len(names) == 1 and bool(names[0]) and is_file(names[0])


def load_teachers(settings: Settings) -> tuple[Teacher, ...]:
    """Load the teachers that the settings name.

    Raises:
        IMAError: If one cannot be used.
    """
    names = settings.teachers
    weights = weights_of(names, settings.ima_teacher_weights)
    pairs = zip(names, weights, strict=True)
    return tuple(load_teacher(name, own, settings.ima_teacher_conf) for name, own in pairs)


def name_the_same(first: Settings, second: Settings) -> bool:
    """Whether `load_teachers` makes the same of both."""
    read = ("teachers", "ima_teacher_weights", "ima_teacher_conf")
    return all(getattr(first, key) == getattr(second, key) for key in read)


def weights_of(names: Sequence[str], given: Sequence[str] | None) -> tuple[str | None, ...]:
    """Weights of each teacher: one value is meant for all that have none of their own, "none" is random ones.

    Args:
        names: The teachers.
        given: One value, or one for each teacher; None for none.
    """
    if given is None:
        return (None,) * len(names)
    if len(given) != 1:
        return tuple(None if own == "none" else own for own in given)
    return tuple(None if given[0] == "none" or (has_weights(name) and len(names) > 1) else given[0] for name in names)


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


def check_pairs(
    student: BaseModel, kind: str, teachers: Sequence[Teacher], settings: Settings, imgsz: int, data: Mapping[str, Any]
) -> None:
    """Refuse a student and teachers that cannot be compared in the way that the settings ask for.

    Args:
        student: Built or loaded.
        kind: Its kind, see `ima_yolo.students`.
        teachers: Loaded and frozen.
        settings: What the user chose.
        imgsz: Side of the student's images in pixels.
        data: The data set as Ultralytics reads it; empty if not known yet.

    Raises:
        IMAError: If a pair shares no level or not one that was asked for, if a head cannot be asked or none of them can
            be compared, or if the task has no instances of the kind that was asked for.
    """
    strides = probe(student, int(student.yaml.get("channels", 3))).strides
    fit_teachers(settings, teachers, strides, data.get("channels", 3), imgsz)
    _check_instances(settings, kind)
    for teacher in teachers:
        _check_head(settings, teacher)
    choose_heads(settings, kind, strides, teachers, imgsz, data.get("names"))


@dataclass(frozen=True)
class HeadChoice:
    """Whose heads are compared with the student's.

    Attributes:
        settings: With numbers for the weights of both terms.
        compared: Whether each teacher's head is.
        left_out: What is left out for which reason, in a line; None where nothing is.
    """

    settings: Settings
    compared: tuple[bool, ...]
    left_out: str | None = None

    @property
    def told(self) -> list[str]:
        """What a training says of it, a line each."""
        lines = [] if self.left_out is None else [self.left_out]
        if self.settings.ima_weight == "auto":
            ratio = float(self.settings.ima_weight_ratio)  # no longer left to us
            lines.append(f"Features weigh {ratio:g} of the task's gradient at the neck")
        return lines


def choose_heads(
    settings: Settings, kind: str, strides: Sequence[int], teachers: Sequence[Teacher], imgsz: int, names: Any
) -> HeadChoice:
    """Choose the teachers whose heads can be compared, and switch the terms on where they were left to us.

    Args:
        settings: What the user chose.
        kind: The student's, see `ima_yolo.students`.
        strides: The student's.
        teachers: Loaded and frozen.
        imgsz: Side of the student's images in pixels.
        names: The data's class names by index; None if not known yet.

    Raises:
        IMAError: If the user asked for the terms and they can be had with no teacher, or asked for them alone
            (ima_weight=0) and not every teacher can give them.
    """
    left_to_us = settings.heads_left_to_us and settings.ima_weight != 0
    if not (settings.needs_predictions or left_to_us):
        return HeadChoice(settings.with_heads(usable=False), (False,) * len(teachers))
    obstacles = [_head_obstacle(settings, kind, strides, teacher, imgsz, names) for teacher in teachers]
    compared = tuple(obstacle is None for obstacle in obstacles)
    reasons = list(dict.fromkeys(obstacle for obstacle in obstacles if obstacle))
    idle = settings.ima_weight == 0 and reasons  # a teacher without features and head would run for nothing
    if any(compared) and not idle:
        reasons += [
            lost
            for teacher, usable in zip(teachers, compared, strict=True)
            if usable and (lost := _lost(teacher, names))
        ]
        left_out = f"Terms on the heads leave out: {'; '.join(reasons)}" if reasons else None
        return HeadChoice(settings.with_heads(usable=True, watched=not reasons), compared, left_out)
    if settings.needs_predictions:
        raise IMAError(f"ima_cls, ima_box: {'; '.join(reasons)}")
    left_out = f"Distilling features alone, not what the heads say: {'; '.join(reasons)}"
    return HeadChoice(settings.with_heads(usable=False), compared, left_out)


def _lost(teacher: Teacher, names: Mapping[int, str] | None) -> str | None:
    """Which of the data's classes a teacher cannot score, if it is a part of them."""
    known = {own for own, _ in shared_classes(teacher, names or {})}
    lost = [str(name) for index, name in (names or {}).items() if int(index) not in known]
    return f"{teacher.name} does not know {', '.join(lost)}" if known and lost else None


def _head_obstacle(
    settings: Settings, kind: str, strides: Sequence[int], teacher: Teacher, imgsz: int, names: Any
) -> str | None:
    """Why what the heads of a student and a teacher say cannot be compared."""
    if kind != "detect":
        return f"the student's kind is {kind}; they compare the heads of YOLO detectors"
    if not teacher.predicts:
        return f"{teacher.name} has no head of an Ultralytics detector ({', '.join(DETECTION_HEADS)})"
    if tuple(strides) != tuple(teacher.strides) or settings.ima_teacher_imgsz not in (None, imgsz):
        size = f" of an image of {settings.ima_teacher_imgsz} px" if settings.ima_teacher_imgsz else ""
        pair = f"{list(strides)} and {list(teacher.strides)}{size} in {teacher.name}"
        return f"the heads have different cells, at strides {pair}"
    if names is not None and not shared_classes(teacher, names):
        return f"{teacher.name} knows none of the data's classes"
    return None


def _check_instances(settings: Settings, kind: str) -> None:
    """Refuse boxes where the labels are pixels, and regions where they are boxes."""
    if settings.ima_loss != "ima":
        return
    asks_for_boxes = settings.ima_instance == "box" or settings.ima_objects == "gt"
    if settings.ima_unlabelled and asks_for_boxes and settings.ima_boxes == "gt":
        raise IMAError("ima_unlabelled: images without labels have no boxes; use ima_boxes=teacher")
    if kind == "semantic" and asks_for_boxes and settings.ima_boxes == "gt":
        raise IMAError("ima_instance=box, ima_objects=gt: task semantic has no boxes; use ima_instance=region")
    if kind != "semantic" and settings.ima_instance == "region":
        raise IMAError("ima_instance=region: regions of a class are known for task semantic alone; use image or box")


def _check_head(settings: Settings, teacher: Teacher) -> None:
    """Refuse a teacher whose head cannot say which positions matter, where a setting asks for that."""
    if (settings.needs_confidence or settings.needs_teacher_boxes) and not teacher.predicts:
        raise IMAError(
            f"teacher={teacher.name}: ima_objects=teacher and ima_boxes=teacher read the head of "
            f"an Ultralytics detector ({', '.join(DETECTION_HEADS)}), which it has not"
        )
