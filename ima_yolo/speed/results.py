"""Results that lie in a folder: which of them are of this benchmark, and whether one is of what is asked now."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from ultralytics.nn.tasks import yaml_model_load

from ima_yolo.errors import IMAError
from ima_yolo.files import read_json
from ima_yolo.speed.case import Case
from ima_yolo.speed.report import machine
from ima_yolo.versions import DIGITS, versions

# What can change a step's cost or how it is measured; tables and plots cannot.
STEP_CODE = (
    *("features.py", "host.py", "align.py", "masks.py", "moments.py", "weighting.py", "criterion.py", "distill.py"),
    *("assembly.py", "attach.py", "config.py", "pairing.py", "labels.py", "merit.py", "finite.py", "memory.py"),
    *("teachers/*.py", "losses/*.py", "speed/case.py", "speed/clock.py", "speed/memory.py", "speed/parts.py"),
    *("speed/periodic.py", "speed/rounds.py", "speed/steps.py"),
)
STEP_PACKAGES = ("torch", "torchvision", "ultralytics", "numpy")
NEEDED = ("plain", "ours", "teacher")


def code_version() -> dict[str, str]:
    """Versions of the packages that step, and a digest of our own files that do and that measure it."""
    return versions(STEP_CODE, STEP_PACKAGES)


def today() -> str:
    """Date and hour in UTC, as results bear it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def key_of(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """What a result must have been measured with to be taken for this case's.

    Args:
        case: Models, sizes and settings.
        device: Where.
        rounds: That are counted.
    """
    models = [case.student, case.teacher]
    return {
        "case": case.name,
        "models": models,
        "contents": [_digest(name) for name in models],
        "rounds": rounds,
        "machine": machine(device),
        "code": code_version(),
    }


def _digest(name: str) -> str:
    """Of a checkpoint's bytes, or of an architecture's description."""
    if name.endswith(".pt"):
        content = Path(name).read_bytes()
    else:
        described = {key: value for key, value in yaml_model_load(name).items() if key != "yaml_file"}
        content = json.dumps(described, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def differences(kept: Mapping[str, Any], key: Mapping[str, Any]) -> list[str]:
    """In what a result differs from a key, in the key's words; nothing where it is of the same."""
    return [word for word, value in key.items() if kept.get(word) != value]


def read_results(folder: Path, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Read the results of a folder, by the stems of their files; what is none of ours is said in a line and left out.

    Args:
        folder: That is there.
        say: Receives a line a file.
    """
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            content = read_json(file)
        except IMAError:
            content = None
        if is_result(content):
            found[file.stem] = content
        else:
            say(f"{file}: damaged, or no result of this benchmark; left out")
    return found


def is_result(content: Any) -> bool:
    """Whether a file's content can be shown: a case with medians and spreads of all arms, ratios and a machine."""
    if not isinstance(content, dict) or not isinstance(content.get("case"), str):
        return False
    seconds, ratios, place = (content.get(word) for word in ("seconds", "ratios", "machine"))
    if not (isinstance(seconds, dict) and isinstance(ratios, dict) and isinstance(place, dict)):
        return False
    if not seconds.keys() >= set(NEEDED) or not all(isinstance(found, dict) for found in seconds.values()):
        return False
    figures = [found.get(word) for found in seconds.values() for word in ("median", "spread")]
    return all(isinstance(value, (int, float)) for value in (*figures, *ratios.values()))
