"""Ablations: the paper's table, the default less a part, and the readings of each step, as arms of a study."""

from __future__ import annotations

from typing import Any, get_args

from ima_yolo.config import PREFIX, RATIO_WATCHED, Settings, own_keys, validate
from ima_yolo.errors import IMAError, nearest
from ima_yolo.experiment.arms import FEATURES_ALONE, NAMED, Arm
from ima_yolo.lists import are_distinct, listed

PARTS = "parts"
# The paper's table: each row adds a part to the one above it (Guo et al. 2025, ablation of the modules).
_IMA = {"ima_loss": "ima", **FEATURES_ALONE}
TABLE = (
    Arm("plain", "ima", {**_IMA, "ima_mask": "none", "ima_standardize": "none", "ima_deflation": "none"}),
    Arm("plus-mask", "ima", {**_IMA, "ima_standardize": "none", "ima_deflation": "none"}),
    Arm("plus-standardization", "ima", {**_IMA, "ima_deflation": "none"}),
    Arm("plus-deflation", "ima", _IMA),
)
DEFAULT = "default"
# The default less one part each. What is left to us besides follows, as it does for whoever leaves the part out:
# without a mask there is nothing to restore, and without a gate, as without heads, features weigh less.
DEFAULT_LOSS = NAMED["ima"].settings
LESS: dict[str, dict[str, Any]] = {
    "mask": {**DEFAULT_LOSS, "ima_mask": "none"},
    "generator": {**DEFAULT_LOSS, "ima_generator": "none"},
    "standardization": {**DEFAULT_LOSS, "ima_standardize": "none"},
    "deflation": {**DEFAULT_LOSS, "ima_deflation": "none"},
    "cls": {**DEFAULT_LOSS, "ima_cls": 0.0},
    "box": {**DEFAULT_LOSS, "ima_box": 0.0},
    "features": NAMED["heads"].settings,
    "heads": {**DEFAULT_LOSS, **FEATURES_ALONE},
    "gate": {**DEFAULT_LOSS, "ima_gate": False},
    "balance": {**DEFAULT_LOSS, "ima_balance": 0.0},
}
# What else has to be set for a reading to be used at all.
NEEDS: dict[str, dict[str, Any]] = {
    "ima_boxes": {"ima_instance": "box"},
    "ima_box_size": {"ima_instance": "box"},
    "ima_background": {"ima_objects": "gt"},
    "ima_teacher_conf": {"ima_instance": "box", "ima_boxes": "teacher"},
    "ima_deflation_floor": {"ima_deflation": "floor"},
    "ima_temperature": {"ima_loss": "cwd"},
    "ima_weight_ratio": {"ima_weight": "auto"},
    "ima_gate": {"ima_weight_ratio": RATIO_WATCHED},  # which is left to the gate, and would differ beside it
}
# Choices that are no reading of their own: `auto` is one of the others, and a region is known for task semantic alone.
NOT_READINGS = {"ima_instance": ("auto", "region"), "ima_generator": ("auto",)}


def read_ablation(what: Any = PARTS, values: Any = None) -> tuple[tuple[Arm, ...], tuple[str, ...]]:
    """Arms of an ablation.

    Args:
        what: "parts" for the paper's table; "default" for the default and, in an arm each, the default less a part; or
            one of our keys, with or without its prefix: each of its choices becomes an arm, for example "mask",
            "instance", "deflation", "objects".
        values: For a key that is a number, the values; for a key with choices, those of them that are wanted; for
            "default", the parts to leave out.

    Returns:
        The arms, `none` (no teacher) first, and the names of those to compare with: `none`, and the row above for the
        paper's table, or the default, or the default's reading.

    Raises:
        IMAError: For something that cannot be ablated, or a value that its key does not take.
    """
    what = str(what)
    if what == PARTS:
        if values is not None:
            raise IMAError(f"values=: what={PARTS} has none; it is the paper's table")
        return (NAMED["none"], *TABLE), ("none", *(arm.name for arm in TABLE[:-1]))
    if what == DEFAULT:
        return (NAMED["none"], NAMED["ima"], *_less(values)), ("none", "ima")
    key = what if what.startswith(PREFIX) else PREFIX + what
    if key not in Settings.model_fields:
        own = sorted(name.removeprefix(PREFIX) for name in own_keys() if name.startswith(PREFIX))
        known = [PARTS, DEFAULT, *(name for name in own if name != "trust")]
        raise IMAError(f"what={what}: there is no such part{nearest(what, known)}; there are {', '.join(known)}")
    chosen = _values(key, what, values)
    needed = {name: value for name, value in NEEDS.get(key, {}).items() if name != key}
    arms = tuple(_arm(key, value, needed) for value in chosen)
    default = Settings.model_fields[key].default
    reference = _name(key, default) if any(arm.name == _name(key, default) for arm in arms) else arms[0].name
    return (NAMED["none"], *arms), ("none", reference)


def _less(values: Any) -> tuple[Arm, ...]:
    """Arms of the default less each of these parts; all of them by default."""
    chosen = list(LESS) if values is None else [str(part) for part in listed(values)]
    if unknown := [part for part in chosen if part not in LESS]:
        near = nearest(unknown[0], LESS)
        raise IMAError(f"values={unknown[0]}: the default has no such part{near}; there are {', '.join(LESS)}")
    if not chosen or len({*chosen}) < len(chosen):
        raise IMAError(f"values={values}: say which parts to leave out, each once")
    return tuple(Arm(f"no-{part}", "ima", LESS[part]) for part in chosen)


def _values(key: str, what: str, values: Any) -> list[Any]:
    kind = Settings.model_fields[key].annotation
    choices = [True, False] if kind is bool else [value for value in get_args(kind) if isinstance(value, str)]
    if values is None:
        if len(choices) < 2:
            example = f"a number; say which, for example what={what} values=0.1,0.5,0.9" if kind is float else ""
            raise IMAError(f"what={what}: {example or 'has no choices of its own; say which with values='}")
        return [choice for choice in choices if choice not in NOT_READINGS.get(key, ())]
    chosen = ["none" if value is None else value for value in listed(values)]
    if len(chosen) < 2 or not are_distinct(chosen):
        raise IMAError(f"values={values}: an ablation needs at least two different values")
    return list(chosen)


def _arm(key: str, value: Any, needed: dict[str, Any]) -> Arm:
    settings = validate({"teacher": "any", **needed, key: value})
    return Arm(_name(key, value), "ima", {**needed, key: getattr(settings, key)})


def _name(key: str, value: Any) -> str:
    return f"{key.removeprefix(PREFIX)}-{value}"
