"""What was measured and committed, as the tests hold the texts against it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def spelled(gain: Any) -> str:
    """A paired or averaged difference with its 95% interval, as the texts write it."""
    return f"{gain.mean:+.1f} ({gain.low:+.1f} to {gain.high:+.1f})"


def unlike(results: Iterable[dict[str, Any]]) -> list[str]:
    """What differs in the conditions of an arm's and another's trainings, but for the version of our own code."""
    from ima_yolo.experiment.tables import same_conditions

    own = "ima_yolo"
    return same_conditions(
        [{**one, "code": {key: version for key, version in one["code"].items() if key != own}} for one in results]
    )


def three_seeds(folder: Path, arm: str) -> list[dict[str, Any]]:
    """The committed results of an arm's seeds 0, 1 and 2."""
    return [json.loads((folder / f"{arm}-seed{seed}.json").read_text()) for seed in range(3)]
