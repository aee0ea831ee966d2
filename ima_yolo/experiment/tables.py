"""A study's results as tables and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ima_yolo.experiment.statistics import Paired, half_interval, paired

POINTS = 100.0  # scores are shares; tables give mAP points


def by_seed(results: Sequence[Mapping[str, Any]], arm: str, score: str) -> dict[int, float]:
    """A score of one arm in points, by seed."""
    return {result["seed"]: POINTS * result[score] for result in results if result["arm"] == arm}


def comparison(
    results: Sequence[Mapping[str, Any]], arms: Sequence[str], score: str = "map50_95"
) -> list[dict[str, Any]]:
    """One row an arm: mean over seeds, and the paired difference to the first arm and to `builtin`.

    Args:
        results: Finished trainings.
        arms: Names in the order of the table.
        score: Key of the score in a result, a share.

    Returns:
        Rows with name, seeds, mean and half width of its interval in points, time in seconds, and the differences.
    """
    rows = []
    for arm in arms:
        scores = by_seed(results, arm, score)
        if not scores:
            continue
        against = [other for other in dict.fromkeys((arms[0], "builtin")) if other != arm and other in arms]
        rows.append(
            {
                "arm": arm,
                "seeds": len(scores),
                "mean": fmean(scores.values()),
                "half": half_interval(list(scores.values())),
                "seconds": fmean(result["seconds"] for result in results if result["arm"] == arm),
                "against": {other: paired(scores, by_seed(results, other, score)) for other in against},
            }
        )
    return rows


def markdown(rows: Sequence[Mapping[str, Any]], heading: str = "mAP50-95") -> str:
    """The rows as a Markdown table."""
    others = list(dict.fromkeys(other for row in rows for other in row["against"]))
    lines = [["arm", "seeds", heading, *(f"against {other}" for other in others), "minutes"]]
    lines.append(["---", "---:", "---:", *("---" for _ in others), "---:"])
    for row in rows:
        differences = [_difference(row["against"].get(other)) for other in others]
        mean = f"{row['mean']:.2f}" + ("" if row["half"] is None else f" ± {row['half']:.2f}")
        lines.append([row["arm"], str(row["seeds"]), mean, *differences, f"{row['seconds'] / 60:.1f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _difference(found: Paired | None) -> str:
    if found is None:
        return ""
    interval = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.mean:+.2f}{interval} {found.verdict}"


def same_conditions(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Seeds whose arms did not start from the same weights, or did not see the same images in the same order."""
    faults = []
    for seed in sorted({result["seed"] for result in results}):
        of_seed = [result for result in results if result["seed"] == seed]
        for key, what in (("initial_digest", "initial weights"), ("data_digest", "images")):
            if len({result[key] for result in of_seed}) > 1:
                faults.append(f"seed {seed}: the arms differ in their {what}")
    return faults
