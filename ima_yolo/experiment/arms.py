"""Arms of a comparison: what differs between two trainings that share everything else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ima_yolo.config import HEAD_WEIGHT, spelt_out, split, validate_alone
from ima_yolo.errors import IMAError, nearest
from ima_yolo.lists import as_typed, listed

# The losses of the papers compare features; what the heads say is a part of our default alone.
FEATURES_ALONE = {"ima_cls": 0, "ima_box": 0}
Kind = Literal["none", "builtin", "ima"]
TEACHER = "teacher"  # what reports call the teacher beside the arms

DECIDED = frozenset({"seed", "resume", "save_dir", "exist_ok"})  # keys of `yolo train` that each training gets from us
PLACES = frozenset({"project", "name", "mode", "cfg"})  # where a study writes, what it does, what it was read from
# What arms are trained on, given time for and evaluated by: arms that differ in it cannot be compared.
TRAINED_ON = ("data", "fraction", "imgsz", "rect", "time", "device", "task")
EVALUATED_BY = ("split", "classes", "single_cls", "conf", "iou", "max_det", "agnostic_nms", "augment")
ALIKE = frozenset({*TRAINED_ON, *EVALUATED_BY, "val", "nms", "half", "dnn"})


@dataclass(frozen=True)
class Arm:
    """One way to train the student.

    Attributes:
        name: How tables call it; also part of its folder's name.
        kind: "none" (no teacher), "builtin" (Ultralytics' `distill_model=`) or "ima" (this package).
        settings: Keys on top of those that all arms share.
    """

    name: str
    kind: Kind
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an arm that would run the code in a checkpoint or write elsewhere: arms may come from a file.

        Raises:
            IMAError: Naming it.
        """
        if "ima_trust" in self.settings:
            raise IMAError(f"arm {self.name}: ima_trust= is for a training of its own; a study trusts no file")
        if taken := sorted((DECIDED | PLACES) & self.settings.keys()):
            raise IMAError(f"arm {self.name}: {taken[0]}= is the study's own; leave it out")

    def options(self, common: Mapping[str, Any], teacher: str) -> dict[str, Any]:
        """Keys of one training of this arm, without the seed.

        Args:
            common: What all arms share, without the teacher; our own keys reach only arms of kind "ima".
            teacher: Checkpoint to learn from.
        """
        ours, rest = split(common)
        if self.kind == "ima":
            return {**rest, **ours, "teacher": teacher, **self.settings}
        return {**rest, **({"distill_model": teacher} if self.kind == "builtin" else {}), **self.settings}


TRIAL = "trial"  # what the names of arms that Optuna proposed begin with
NAMED: dict[str, Arm] = {
    "none": Arm("none", "none"),
    "builtin": Arm("builtin", "builtin"),
    **{name: Arm(name, "ima", {"ima_loss": name, **FEATURES_ALONE}) for name in ("l2", "mgd", "cwd", "pkd")},
    "features": Arm("features", "ima", {"ima_loss": "ima", **FEATURES_ALONE}),
    "heads": Arm("heads", "ima", {"ima_weight": 0, "ima_cls": HEAD_WEIGHT, "ima_box": HEAD_WEIGHT}),
    "ima": Arm("ima", "ima", {"ima_loss": "ima"}),
}


def read_arms(given: str | Sequence[str] | Mapping[str, Any]) -> tuple[Arm, ...]:
    """Build arms from what the user wrote.

    Args:
        given: Names of known arms ("none,builtin,ima" or a list); or a mapping of a name to the keys that this arm
            sets, as a recipe's `arms:` holds it. One that bears the name of a known arm, or names one by its key
            `like`, is that arm with these keys on top; another distils with the keys that all trainings share.

    Raises:
        IMAError: For an unknown arm, a name that cannot be a folder, or keys that are not valid.
    """
    if isinstance(given, Mapping):
        arms = tuple(_own_arm(str(name), keys) for name, keys in given.items())
    else:
        arms = tuple(_named_arm(str(name)) for name in listed(given) if name)
    if len(arms) < 2:
        raise IMAError("arms=: a comparison needs at least two, for example arms=none,builtin,ima")
    if len({arm.name for arm in arms}) < len(arms):
        raise IMAError(f"arms={','.join(arm.name for arm in arms)}: an arm is named twice")
    return arms


def _named_arm(name: str) -> Arm:
    if name not in NAMED:
        known = f"there are {', '.join(NAMED)}, and those that a recipe defines under arms:"
        raise IMAError(f"arms=: there is no arm '{name}'{nearest(name, NAMED)}; {known}")
    return NAMED[name]


def check_alike(name: str, keys: Mapping[str, Any]) -> None:
    """Refuse an arm that would be trained on other images or evaluated otherwise than its neighbours.

    Raises:
        IMAError: Naming arm and key.
    """
    if taken := sorted(ALIKE & keys.keys()):
        raise IMAError(f"arm {name}: {taken[0]}= has to be the same for all arms; give it once, for the study")


def _own_arm(name: str, given: Any) -> Arm:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise IMAError(f"arms: '{name}' cannot name a folder; use letters, digits, '.', '_' and '-'")
    if name == TEACHER:
        raise IMAError(f"arms: '{name}' is what the report calls the teacher; choose another name")
    if given is not None and not isinstance(given, Mapping):
        raise IMAError(f"arms: {name}: expected a mapping of keys to values")
    keys = dict(given or {})
    if "like" not in keys:
        return _with(NAMED.get(name, Arm(name, "ima")), name, keys)
    like = as_typed(keys.pop("like"))
    if name in NAMED and like != name:
        raise IMAError(f"arm {name}: like={like}: a known arm is like itself; give this one another name")
    if like not in NAMED:
        raise IMAError(f"arm {name}: like={like}: there are {', '.join(NAMED)}")
    return _with(NAMED[like], name, keys)


def _with(known: Arm, name: str, keys: Mapping[str, Any]) -> Arm:
    """A known arm with these keys on top, under this name."""
    try:
        ours, rest = split(keys)
        validate_alone(ours)
    except IMAError as error:
        raise IMAError(f"arm {name}: {error}") from None
    if "distill_model" in rest or "teacher" in ours or "model" in rest:
        raise IMAError(f"arms: {name}: models are the same for all arms; give teacher= and student= once")
    if ours and known.kind != "ima":
        raise IMAError(
            f"arm {name}: {next(iter(ours))}= has no effect on '{known.name}', which Ultralytics trains alone"
        )
    check_alike(name, keys)
    return Arm(name, known.kind, {**known.settings, **rest, **spelt_out(ours)})
