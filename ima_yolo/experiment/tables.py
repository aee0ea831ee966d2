"""A study's results as tables and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ultralytics.utils import DEFAULT_CFG_DICT

from ima_yolo.config import PREFIX
from ima_yolo.experiment.arms import TRIAL, Arm
from ima_yolo.experiment.statistics import Paired, half_interval, paired

CONDITIONS = {"initial_digest": "initial weights", "data_digest": "images", "epochs": "epochs", "device": "device"}
RUNTIME = f"{PREFIX}teacher_runtime"
HALF = "what stands after ± is half of the 95% interval of the mean over seeds"
MOST_NAMES = 5  # of trainings in a sentence
LEAST_SHOWN = 0.005  # points of mAP: less is printed as nothing
POINTS = 100.0  # scores are shares; tables give mAP points


def by_seed(results: Sequence[Mapping[str, Any]], arm: str, score: str) -> dict[int, float]:
    """A score of one arm in points, by seed."""
    return {result["seed"]: POINTS * result[score] for result in results if result["arm"] == arm}


def comparison(
    results: Sequence[Mapping[str, Any]],
    arms: Sequence[str],
    score: str = "map50_95",
    against: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """One row an arm: mean over seeds, and paired differences.

    Args:
        results: Finished trainings.
        arms: Names in the order of the table.
        score: Key of the score in a result, a share.
        against: Arms to compare with, those first that others among them are compared with; by default the first arm
            and `builtin`.

    Returns:
        Rows with name, seeds, mean and half width of its interval in points, time in seconds, and the differences.
    """
    references = [other for other in dict.fromkeys(against or (arms[0], "builtin")) if other in arms]
    rows = []
    for arm in arms:
        scores = by_seed(results, arm, score)
        if not scores:
            continue
        # Each pair once: a reference is compared with those before it.
        others = references[: references.index(arm)] if arm in references else references
        rows.append(
            {
                "arm": arm,
                "seeds": len(scores),
                "mean": fmean(scores.values()),
                "half": half_interval(list(scores.values())),
                "seconds": fmean(result["seconds"] for result in results if result["arm"] == arm),
                "against": {other: paired(scores, by_seed(results, other, score)) for other in others},
            }
        )
    return rows


def compared_with(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the arms that others are compared with, in the order of the longest list of them."""
    longest = max((list(row["against"]) for row in rows), key=len, default=[])
    return list(dict.fromkeys([*longest, *(other for row in rows for other in row["against"])]))


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A Markdown table.

    Args:
        heads: One a column.
        lines: The cells.
        right: Columns that are aligned to the right.
    """
    rule = ["---:" if column in right else "---" for column in range(len(heads))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [heads, rule, *lines])


def comparison_cells(rows: Sequence[Mapping[str, Any]], heading: str = "mAP50-95") -> tuple[list[str], list[list[str]]]:
    """The rows as text: heads and cells."""
    others = compared_with(rows)
    heads = ["arm", "seeds", heading, *(f"against {other}" for other in others), "minutes"]
    lines = []
    for row in rows:
        differences = [difference_text(row["against"].get(other)) for other in others]
        mean = plus_minus(row["mean"], row["half"])
        lines.append([row["arm"], str(row["seeds"]), mean, *differences, f"{row['seconds'] / 60:.1f}"])
    return heads, lines


def markdown(rows: Sequence[Mapping[str, Any]], heading: str = "mAP50-95") -> str:
    """The rows as a Markdown table."""
    heads, lines = comparison_cells(rows, heading)
    return markdown_table(heads, lines, right=(1, 2, len(heads) - 1))


def difference_text(found: Paired | None) -> str:
    """A paired difference with its interval and what may be said of it; empty without a common seed."""
    if found is None:
        return ""
    interval = "" if found.low is None else f" [{found.low:+.2f}, {found.high:+.2f}]"
    return f"{found.mean:+.2f}{interval} {found.verdict}"


def conclusions(rows: Sequence[Mapping[str, Any]], score: str = "mAP50-95") -> list[str]:
    """What the paired differences allow to say, one sentence each, in words."""
    said = []
    for row in rows:
        for other, found in row["against"].items():
            if found is not None:
                said.append(_sentence(row["arm"], other, found, score))
    return said


def _sentence(arm: str, other: str, found: Paired, score: str) -> str:
    if found.low is None:
        return (
            f"{arm} against {other}: no evidence either way, since one seed gives no interval "
            f"({found.mean:+.2f} {score} in that one pair)."
        )
    measured = f"{found.mean:+.2f} {score}, 95% interval {found.low:+.2f} to {found.high:+.2f}, "
    measured += f"{len(found.differences)} pairs"
    word = {"better": "is better than", "worse": "is worse than"}.get(found.verdict)
    return f"{arm} {word} {other} ({measured})." if word else f"{arm} against {other}: no evidence ({measured})."


def same_conditions(results: Sequence[Mapping[str, Any]], common: Mapping[str, Any] | None = None) -> list[str]:
    """What keeps the pairs of a study from being alike: weights, images, epochs, devices, keys or code; resumptions.

    Digests of a resumed training cover a part of it only and are left empty; such trainings are named instead.

    Args:
        results: Of finished trainings.
        common: Keys of all trainings, which arms may give once more; None for Ultralytics' defaults.
    """
    faults = []
    for seed in sorted({result["seed"] for result in results}):
        of_seed = [result for result in results if result["seed"] == seed]
        for key, what in CONDITIONS.items():
            if len({result[key] for result in of_seed if result.get(key)}) > 1:
                faults.append(f"seed {seed}: the arms differ in their {what}")
        if len(ran := _runtimes(of_seed)) > 1:
            faults.append(f"seed {seed}: the arms' teachers ran in different ways ({', '.join(ran)})")
    faults += own_keys({result["arm"]: {**(common or {}), **(result.get("settings") or {})} for result in results})
    faults += _mixed(results)
    versions = {tuple(sorted(result["code"].items())) for result in results if "code" in result}
    if len(versions) > 1:
        faults.append(f"the results come from {len(versions)} versions of code or packages")
    resumed = sorted(f"{result['arm']}-seed{result['seed']}" for result in results if result.get("resumed"))
    if resumed:
        faults.append(f"stopped and resumed, so not equal bit for bit to unbroken trainings: {', '.join(resumed)}")
    return faults


def _runtimes(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """How teachers ran where that was left to each machine; `auto` is of versions that did not note what it came to."""
    left = [result for result in results if RUNTIME not in (result.get("settings") or {})]
    return sorted({str((result.get("in_force") or {}).get(RUNTIME, "auto")) for result in left} - {"auto"})


def nothing_to_compare(results: Sequence[Mapping[str, Any]], score: str = "map50_95") -> list[str]:
    """A sentence where figures are alike for another reason than the arms': nothing was learnt, or the same thing."""
    by_arm = {arm: by_seed(results, arm, score) for arm in dict.fromkeys(result["arm"] for result in results)}
    if results and max(max(scores.values()) for scores in by_arm.values()) < LEAST_SHOWN:
        return ["no training has found anything yet, so that no arm is better says nothing: train for longer"]
    found: dict[str, list[str]] = {}
    for arm, scores in by_arm.items():
        found.setdefault(str(sorted(scores.items())), []).append(arm)
    alike = [arms for arms in found.values() if len(arms) > 1]
    return [
        f"{', '.join(arms)} ended with the same figures to the last digit: they were trained alike" for arms in alike
    ]


def mean_text(values: Sequence[float], digits: int = 2, interval: bool = True) -> str:
    """The mean over seeds and half of its 95% interval, where there is one; empty without a value."""
    if not values:
        return ""
    return plus_minus(fmean(values), half_interval(values) if interval else None, digits)


def plus_minus(mean: float, half: float | None, digits: int = 2) -> str:
    """A mean and half of its interval, where there is one."""
    return f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def setting_text(value: Any) -> str:
    """A setting as a table shows it: numbers to four digits, which Optuna draws with sixteen."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def trials_told(arms: Sequence[Arm]) -> list[str]:
    """A sentence for each arm that Optuna proposed: its settings, which its name does not tell."""
    told = {arm.name: [f"{key}={setting_text(value)}" for key, value in arm.settings.items()] for arm in arms}
    return [f"{name}: {', '.join(words)}" for name, words in told.items() if name.startswith(TRIAL)]


def not_shown(names: Sequence[str]) -> list[str]:
    """A sentence of finished trainings that the tables leave out, as they are of other arms or seeds.

    Args:
        names: Of these trainings.
    """
    if not names:
        return []
    told = ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")
    count = f"{len(names)} finished training{'s' * (len(names) > 1)}"
    return [f"this folder also holds {count} of other arms or seeds ({told}), which a call that names them shows"]


def own_keys(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence of keys of the plain training that some arms have and others have not: what differs may be theirs.

    Args:
        arms: Settings by name.
    """
    own = {arm: plain_keys(settings) for arm, settings in arms.items()}
    keys = sorted({key for keys in own.values() for key in keys})
    differ = [key for key in keys if len({str(one.get(key, DEFAULT_CFG_DICT.get(key))) for one in own.values()}) > 1]
    if not differ:
        return []
    return [f"the arms differ in {', '.join(differ)} of the training itself: what differs may not be the teacher's"]


def plain_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of an arm that are neither ours nor those of Ultralytics' own distillation."""
    return {key: value for key, value in settings.items() if not key.startswith(PREFIX) and key != "dis"}


def _mixed(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arms whose seeds were trained with different settings in force, but for how each machine ran the teacher."""
    found: dict[str, set[str]] = {}
    for result in results:
        if in_force := result.get("in_force"):
            kept = sorted((key, value) for key, value in in_force.items() if key != RUNTIME)
            found.setdefault(result["arm"], set()).add(str(kept))
    mixed = sorted(arm for arm, settings in found.items() if len(settings) > 1)
    return [f"the seeds of {', '.join(mixed)} were trained with different settings in force"] if mixed else []
