"""Settings of a distillation: typed, strict, and separated from the keys that belong to Ultralytics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from ima_yolo.errors import IMAError, nearest
from ima_yolo.lists import as_text, listed_files
from ima_yolo.plain_yaml import read_plain

PREFIX = "ima_"


HEAD_WEIGHT = 1.0  # that of the terms on the heads where they are left to us
RATIO, RATIO_WATCHED = 0.1, 0.5  # of the features where that is left to us, and where gates watch all teachers
_SWITCHES = ("ima_gate", "ima_trust")
_WEIGHTS = ("ima_weight", "ima_cls", "ima_box")
_OR_AUTO = {
    **dict.fromkeys(_WEIGHTS, "must be 'auto' or a number from 0 up"),
    "ima_weight_ratio": "must be 'auto' or a number above 0, at most 100",
}
_OF_EACH_TEACHER = ("teacher", "ima_teacher_weights", "ima_teacher_shares")
_LISTS = ("ima_levels", "ima_teacher_weights", "ima_teacher_shares", "ima_teacher_channels")


class Settings(BaseModel):
    """Every key that this package adds to Ultralytics' own. `cfg/default.yaml` explains each in the user's words."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    teacher: str = Field(min_length=1)
    ima_teacher_weights: tuple[str, ...] | None = None
    ima_teacher_shares: tuple[float, ...] | None = None
    ima_teacher_imgsz: int | None = Field(None, ge=32, le=8192)
    ima_teacher_channels: tuple[int, ...] | None = None
    ima_teacher_runtime: Literal["auto", "torch", "bf16", "onnx"] = "auto"
    ima_loss: Literal["ima", "l2", "mgd", "cwd", "pkd"] = "ima"
    ima_weight: Literal["auto"] | float = "auto"
    ima_weight_ratio: Literal["auto"] | Annotated[float, Field(gt=0, le=100)] = "auto"
    ima_schedule: Literal["constant", "linear", "cosine"] = "constant"
    ima_off: float = Field(0.0, ge=0, lt=1)
    ima_batch_share: float = Field(1.0, gt=0, le=1)
    ima_every: int = Field(1, ge=1, le=100)
    ima_cls: Literal["auto"] | float = "auto"
    ima_box: Literal["auto"] | float = "auto"
    ima_balance: float = Field(0.5, ge=0, le=1)
    ima_gate: bool = Field(True, strict=True)
    ima_unlabelled: str | None = None
    ima_unlabelled_ratio: float = Field(1.0, gt=0, le=16)
    ima_levels: tuple[int, ...] | None = None
    ima_adapter: Literal["always", "differ"] = "always"
    ima_mask: Literal["spatial", "frequency", "none"] = "spatial"
    ima_mask_ratio: float = Field(0.5, ge=0, lt=1)
    ima_generator: Literal["auto", "light", "conv", "none"] = "auto"
    ima_standardize: Literal["both", "student", "none"] = "both"
    ima_deflation: Literal["weight", "shifted", "floor", "cosine", "none"] = "weight"
    ima_deflation_floor: float = Field(0.1, gt=0, le=1)
    ima_instance: Literal["auto", "image", "box", "region"] = "auto"
    ima_box_size: int = Field(7, ge=2, le=64)
    ima_boxes: Literal["gt", "teacher"] = "gt"
    ima_objects: Literal["none", "gt", "teacher"] = "none"
    ima_background: float = Field(0.0, ge=0, le=1)
    ima_teacher_conf: float = Field(0.25, gt=0, lt=1)
    ima_temperature: float = Field(1.0, gt=0, le=100)
    ima_trust: bool = Field(False, strict=True)

    @field_validator(*_WEIGHTS, mode="after")
    @classmethod
    def _weight_in_range(cls, weight: str | float) -> str | float:
        if isinstance(weight, float) and not 0 <= weight < float("inf"):
            raise ValueError(_OR_AUTO["ima_weight"])
        return weight

    @field_validator(*_LISTS, mode="before")
    @classmethod
    def _one_value_is_a_list(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = [part for part in values.replace(" ", "").strip("[]()").split(",") if part]
        # an empty list means what an empty value does
        return [values] if isinstance(values, (int, float)) else values or None

    @field_validator("ima_teacher_channels", mode="after")
    @classmethod
    def _channels_count_from_zero(cls, channels: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if channels and min(channels) < 0:
            raise ValueError("must be numbers of channels, counted from 0")
        return channels

    @field_validator("*", mode="before")
    @classmethod
    def _a_switch_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name not in _SWITCHES:
            raise ValueError("expected a value, not a switch")
        return value

    @model_validator(mode="after")
    def _boxes_have_no_background(self) -> Settings:
        if self.ima_instance in ("box", "region") and self.ima_objects != "none":
            kind, rest = self.ima_instance, "use ima_objects=none"
            raise ValueError(f"ima_objects weighs positions of whole images; with ima_instance={kind} {rest}")
        return self

    @model_validator(mode="after")
    def _one_value_for_each_teacher(self) -> Settings:
        count = len(self.teachers)
        if count == 0:
            raise ValueError("teacher= names nothing between its commas")
        if self.ima_teacher_weights and len(self.ima_teacher_weights) not in (1, count):
            raise ValueError(f"ima_teacher_weights needs one value, or one for each of {count} teachers")
        shares = self.ima_teacher_shares
        if shares and (len(shares) != count or not all(0 < share < float("inf") for share in shares)):
            raise ValueError(f"ima_teacher_shares needs {count} numbers above 0, one for each teacher")
        return self

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers."""
        return tuple(name for name in listed_files(self.teacher) if name)

    @property
    def shares(self) -> tuple[float, ...]:
        """Weight of each teacher's loss; they sum to 1."""
        given = self.ima_teacher_shares or (1.0,) * len(self.teachers)
        parts = [share / max(given) for share in given]  # the sum of the largest numbers would be infinite
        return tuple(part / sum(parts) for part in parts)

    def for_task(self, task: str) -> Settings:
        """The settings with the choices made that depend on the task, a word of Ultralytics."""
        if self.ima_instance != "auto" or self.ima_loss != "ima":
            return self
        return self.model_copy(update={"ima_instance": "region" if task == "semantic" else "image"})

    @property
    def restore(self) -> str:
        """The generator in use: conv, light or none; by default one follows a spatial mask, which leaves holes."""
        if self.ima_generator == "auto":
            return "light" if self.ima_mask == "spatial" and self.ima_mask_ratio > 0 else "none"
        return self.ima_generator

    @property
    def needs_confidence(self) -> bool:
        """Whether the teacher's head must give a confidence to each position."""
        return self.ima_loss == "ima" and self.ima_objects == "teacher"

    @property
    def needs_teacher_boxes(self) -> bool:
        """Whether the teacher's head must give its own detections."""
        uses_boxes = self.ima_instance == "box" or self.ima_objects == "gt"
        return self.ima_loss == "ima" and self.ima_boxes == "teacher" and uses_boxes

    @property
    def needs_predictions(self) -> bool:
        """Whether a term compares what the heads say; one that is left to us does so once `with_heads` has chosen."""
        return any(isinstance(weight, float) and weight > 0 for weight in (self.ima_cls, self.ima_box))

    def with_heads(self, usable: bool, watched: bool = False) -> Settings:
        """The settings with the weights chosen that depend on the heads, where they were left to us.

        Args:
            usable: Whether the heads of student and teachers can be compared. No teacher (ima_weight=0) needs none.
            watched: Whether those of all teachers can, in every class, so that a gate may hold back each.
        """
        weight = HEAD_WEIGHT if usable and self.ima_weight != 0 else 0.0
        chosen: dict[str, Any] = dict.fromkeys(self.heads_left_to_us, weight)
        if not self.model_copy(update=chosen).needs_predictions:
            chosen["ima_gate"] = False  # it has nothing to see
        if self.ima_weight_ratio == "auto":
            is_gated = chosen.get("ima_gate", self.ima_gate)
            chosen["ima_weight_ratio"] = RATIO_WATCHED if watched and is_gated else RATIO
        return self.model_copy(update=chosen)

    @property
    def heads_left_to_us(self) -> tuple[str, ...]:
        """Which weights of terms on the heads the user did not give."""
        return tuple(key for key in ("ima_cls", "ima_box") if getattr(self, key) == "auto")

    @property
    def _read_with_another(self) -> dict[str, bool]:
        """Keys that another key's choice brings into play, and whether it does."""
        by_box = self.ima_instance == "box"
        return {
            "ima_deflation_floor": self.ima_deflation == "floor",
            "ima_mask_ratio": self.ima_loss != "ima" or self.ima_mask != "none",
            "ima_box_size": by_box,
            "ima_boxes": by_box or self.ima_objects == "gt",
            "ima_background": self.ima_objects != "none",
            "ima_teacher_conf": self.needs_teacher_boxes,
            "ima_unlabelled_ratio": self.ima_unlabelled is not None,
            "ima_teacher_shares": len(self.teachers) > 1,
        }

    @property
    def unread(self) -> set[str]:
        """Keys that the other settings leave unread, whatever their value."""
        used = {"ima": _IMA_ONLY, "mgd": {"ima_mask_ratio"}, "cwd": {"ima_temperature"}}.get(self.ima_loss, set())
        particular = _IMA_ONLY | {"ima_temperature"}
        idle = particular - used
        idle |= {key for key, is_read in self._read_with_another.items() if not is_read}
        if self.ima_weight != "auto":
            idle |= {"ima_weight_ratio"}
        if self.ima_weight == 0:
            idle |= {*particular, "ima_loss", "ima_adapter"}
        if self.ima_box == 0:
            idle |= {"ima_balance"} | ({"ima_gate"} if self.ima_cls == 0 else set())
        return idle

    @property
    def without_effect(self) -> list[str]:
        """Keys that differ from their default but that the other settings leave unread."""
        changed = {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}
        return sorted(self.unread & changed)


_IMA_ONLY = {
    "ima_mask",
    "ima_mask_ratio",
    "ima_generator",
    "ima_standardize",
    "ima_deflation",
    "ima_deflation_floor",
    "ima_instance",
    "ima_box_size",
    "ima_boxes",
    "ima_objects",
    "ima_background",
    "ima_teacher_conf",
}


def own_keys() -> frozenset[str]:
    """Names of all our keys."""
    return frozenset(Settings.model_fields) | {"student"}


def split(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate our keys from Ultralytics', and turn `student` into the `model` that Ultralytics knows.

    Args:
        options: Keys and values as the user gave them.

    Returns:
        Ours (without `student`), and the rest.

    Raises:
        IMAError: For a misspelt key with our prefix, or `student` and `model` that differ.
    """
    ours: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in options.items():
        if key in Settings.model_fields:
            ours[key] = value
        elif key.startswith(PREFIX):
            raise IMAError(f"'{key}' is not a setting{nearest(key, own_keys())}")
        else:
            rest[key] = value
    student = rest.pop("student", None)
    if student is not None:
        if rest.get("model") not in (None, student):
            raise IMAError(f"student={student} and model={rest['model']} name two models; give one of them")
        rest["model"] = student
    return ours, rest


def validate(ours: Mapping[str, Any]) -> Settings:
    """Build the settings from our keys.

    Args:
        ours: Keys of `Settings`; None stands for the choice called "none" where there is one, else for the default.

    Raises:
        IMAError: One line that names the key, the value and what was expected.
    """
    for key in _WEIGHTS:
        if key in ours and ours[key] is None:
            raise IMAError(f"{key}=none: {_OR_AUTO[key]}; 0 is off")
    given = spelt_out(ours)
    if "teacher" in given:
        given["teacher"] = as_text(given["teacher"])
    try:
        return Settings(**given)
    except ValidationError as error:
        raise IMAError(_one_line(error, given)) from None


def validate_alone(ours: Mapping[str, Any]) -> Settings:
    """Do the same where no teacher is known; what has a value for each of them is left to be checked with them."""
    return validate({"teacher": "any", **{key: value for key, value in ours.items() if key not in _OF_EACH_TEACHER}})


def spelt_out(ours: Mapping[str, Any]) -> dict[str, Any]:
    """Our keys with the word "none" where that is the name of a choice and the command line made None of it.

    Another key that is None is left out: it has its default.
    """
    choices = {key for key, field in Settings.model_fields.items() if "none" in get_args(field.annotation)}
    spelt = {key: "none" if value is None and key in choices else value for key, value in ours.items()}
    return {key: value for key, value in spelt.items() if value is not None}


def _one_line(error: ValidationError, given: Mapping[str, Any]) -> str:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if key == "teacher" and not given.get(key):
        return "teacher= is missing: give the checkpoint to learn from, for example teacher=yolo26m.pt"
    reason = str(first["msg"]).removeprefix("Value error, ")
    if key in _OR_AUTO:  # a union reports each of its branches; neither alone says what is allowed
        reason = _OR_AUTO[key]
    return f"{key}={given.get(key)}: {reason[:1].lower()}{reason[1:]}" if key else reason


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe as `read_mapping` does; an empty value leaves the default."""
    return {key: value for key, value in read_mapping(path).items() if value is not None}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of keys to plain values.

    Raises:
        IMAError: If the file is missing, is no YAML mapping, or not one of plain values.
    """
    content = read_plain(path, "cfg")
    if not isinstance(content, dict):
        raise IMAError(f"cfg={path}: expected lines of 'key: value'")
    return {str(key): value for key, value in content.items()}
