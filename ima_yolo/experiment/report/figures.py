"""Figures of a report, each small enough to be read on a phone."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from ima_yolo.experiment.arms import NAMED, TEACHER, TRIAL, Arm
from ima_yolo.experiment.report.analysis import RECALLS
from ima_yolo.experiment.report.measured import Measured
from ima_yolo.experiment.report.mistakes import KINDS
from ima_yolo.experiment.tables import POINTS, by_seed, compared_with

WIDTH = 4.6  # inches: about the width of a phone at the size of text that is used here
COLOURS = ("#4d5a6b", "#d1495b", "#00798c", "#edae49", "#7b5ea7", "#66a182", "#b36a5e", "#2e4057")
TEACHER_COLOUR = "#9aa5b1"
MAP_COLUMN = "metrics/mAP50-95(B)"
MOST_CLASSES = 8
WIDE_RANGE = 20  # from this ratio of the largest to the smallest value on, an axis is logarithmic
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a94a0",
    "axes.labelcolor": "#3c4652",
    "xtick.color": "#3c4652",
    "ytick.color": "#3c4652",
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "ima-yolo",  # the same figures give the same file
}


@dataclass(frozen=True)
class Figure:
    """A figure as a file.

    Attributes:
        name: Of the file, without suffix.
        kind: "svg" or "jpeg".
        content: The file's bytes.
        caption: Text below it.
        wide: Whether it needs the page's whole width.
    """

    name: str
    kind: str
    content: bytes
    caption: str
    wide: bool = False


def colours(arms: Iterable[str]) -> dict[str, str]:
    """A colour for each arm, and one for the teacher."""
    return {TEACHER: TEACHER_COLOUR, **{arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(arms)}}


@contextmanager
def drawing(made: list[Figure], name: str, caption: str, height: float = 3.1) -> Iterator[Axes]:
    """Offer axes to draw on, and append what was drawn to `made`."""
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        axes = canvas.add_subplot()
        yield axes
        file = io.BytesIO()
        canvas.savefig(file, format="svg", metadata={"Date": None})
    made.append(Figure(name, "svg", file.getvalue(), caption))


def difference_figures(rows: Sequence[Mapping[str, Any]], colour: Mapping[str, str]) -> list[Figure]:
    """For each arm that others are compared with: paired differences, a dot a seed, with the interval of the mean."""
    made: list[Figure] = []
    for other in compared_with(rows):
        shown = [(row["arm"], row["against"][other]) for row in rows if row["against"].get(other) is not None]
        caption = f"mAP50-95 points against {other}: a dot for each seed, the bar is the 95% interval of the mean."
        with drawing(made, f"against-{other}", caption, height=0.9 + 0.42 * max(2, len(shown))) as axes:
            axes.axvline(0, color="#3c4652", linewidth=1)
            for place, (arm, found) in enumerate(shown):
                if found.low is not None:
                    axes.plot([found.low, found.high], [place, place], color=colour[arm], linewidth=6, alpha=0.35)
                axes.plot(found.differences, [place] * len(found.differences), "o", color=colour[arm], markersize=4)
                axes.plot([found.mean], [place], "|", color=colour[arm], markersize=18, markeredgewidth=2.5)
            axes.set_yticks(range(len(shown)), [arm for arm, _ in shown])
            axes.set_ylim(len(shown) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            axes.set_title(f"Difference to {other}")
            axes.set_xlabel("mAP50-95 points")
    return made


def curve_figures(measured: Measured, colour: Mapping[str, str]) -> list[Figure]:
    """Accuracy and each loss term by epoch: mean over seeds, with a band from the lowest seed to the highest."""
    made: list[Figure] = []
    columns = dict.fromkeys(column for result in measured.results for row in result["curves"][:1] for column in row)
    terms = [column for column in columns if column.startswith("train/")]
    named = [(MAP_COLUMN, "mAP50-95 by epoch", POINTS), *((term, term.removeprefix("train/"), 1.0) for term in terms)]
    if "ima/weight" in columns:
        named.append(("ima/weight", "weight of the distillation", 1.0))
    for column, title, scale in named:
        drawn = 0
        caption = f"{title}: mean over seeds, band from the lowest to the highest."
        with drawing(made, column.replace("/", "-").split("(")[0], caption) as axes:
            for arm in measured.leading(len(COLOURS)):
                drawn += _band(axes, measured, arm, column, scale, colour[arm])
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if drawn:
                axes.legend(fontsize=8)
        if not drawn:
            made.pop()
    return made


def _band(axes: Axes, measured: Measured, arm: str, column: str, scale: float, colour: str) -> int:
    lines = [result["curves"] for result in measured.results if result["arm"] == arm]
    lines = [[row[column] * scale for row in line if column in row] for line in lines]
    length = min((len(line) for line in lines), default=0)
    if not length:
        return 0
    table = np.array([line[:length] for line in lines])
    epochs = np.arange(1, length + 1)
    marker = "o" if length == 1 else None
    axes.plot(epochs, table.mean(0), color=colour, label=arm, linewidth=1.8, marker=marker)
    if len(table) > 1:
        axes.fill_between(epochs, table.min(0), table.max(0), color=colour, alpha=0.18, linewidth=0)
    return 1


def precision_figures(measured: Measured, colour: Mapping[str, str]) -> list[Figure]:
    """Precision by recall at IoU 0.5 for the classes that distillation moved most."""
    made: list[Figure] = []
    curves = {name: _mean_precision(measured, name) for name in measured.pictured}
    classes = list(dict.fromkeys(kind for found in curves.values() for kind in found))
    recall = np.linspace(0, 1, RECALLS)
    for number, kind in enumerate(_most_moved(measured, curves, classes)):
        caption = f"Precision by recall at IoU 0.5, class {kind}, mean over seeds."
        with drawing(made, f"precision-{number}", caption) as axes:
            for name, found in curves.items():
                if kind in found:
                    label = f"{name} ({100 * found[kind].mean():.1f})"
                    axes.plot(recall, found[kind], color=colour[name], label=label, linewidth=1.8)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
            axes.set_title(kind)
            axes.legend(fontsize=8, title="AP50", title_fontsize=8)
    return made


def _mean_precision(measured: Measured, name: str) -> dict[str, Any]:
    found = [one["precision"] for one in measured.of_arm(name)]
    classes = dict.fromkeys(kind for one in found for kind in one)
    return {kind: np.mean([one[kind] for one in found if kind in one], axis=0) for kind in classes}


def _most_moved(measured: Measured, curves: Mapping[str, Mapping[str, Any]], classes: Sequence[str]) -> list[str]:
    plain, distilled = curves.get(measured.plain or "", {}), curves.get(measured.distilled or "", {})

    def moved(kind: str) -> float:
        return abs(float(distilled[kind].mean() - plain[kind].mean())) if kind in plain and kind in distilled else 0.0

    return list(classes) if len(classes) <= MOST_CLASSES else sorted(classes, key=moved, reverse=True)[:MOST_CLASSES]


def bar_figures(measured: Measured, colour: Mapping[str, str]) -> list[Figure]:
    """Kinds of error for every hundred objects, and average precision by size of the object."""
    made: list[Figure] = []
    names = [name for name in measured.pictured if measured.of_arm(name)]
    if not names:
        return made
    rates = {name: [[rate(one, kind) for kind in KINDS] for one in measured.of_arm(name)] for name in names}
    caption = (
        "Mistakes of each kind for every hundred objects, at confidence 0.25; a dot for each seed. Less is better."
    )
    with drawing(made, "mistakes", caption, height=3.6) as axes:
        _bars(axes, rates, KINDS, colour)
        axes.set_title("Kinds of error per 100 objects")
    counts = measured.of_arm(names[0])[0]["objects_of_size"]
    sizes = [size for size, count in counts.items() if count]
    scores = {
        name: [[POINTS * (one["ap_of_size"][size] or 0.0) for size in sizes] for one in measured.of_arm(name)]
        for name in names
    }
    caption = "AP50-95 by size in the original image: small below 32 x 32 px, medium below 96 x 96 px, large above."
    with drawing(made, "sizes", caption, height=3.6) as axes:
        _bars(axes, scores, [f"{size} ({counts[size]})" for size in sizes], colour)
        axes.set_title("AP50-95 by size (number of objects)")
    return made


def rate(one: Mapping[str, Any], kind: str) -> float:
    """Mistakes of a kind for every hundred objects, from an analysis."""
    return float(100 * one["mistakes"][kind] / max(1, one["mistakes"]["objects"]))


def _bars(axes: Axes, values: Mapping[str, Sequence[Sequence[float]]], labels: Sequence[str], colour: Any) -> None:
    step = 0.8 / len(values)
    for number, (name, rows) in enumerate(values.items()):
        table = np.array(rows)  # (seeds, labels)
        places = np.arange(len(labels)) + (number - (len(values) - 1) / 2) * step
        axes.barh(places, table.mean(0), step * 0.9, color=colour[name], alpha=0.75, label=name)
        if len(table) > 1:
            axes.plot(table.T, places, "o", color="#1c2026", markersize=2)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=8)


def swept_keys(arms: Sequence[Arm]) -> list[str]:
    """Keys that three arms or more, or both of two, set to two values or more, but for arms that are known by name.

    Of trials they are all, also where each drew the same value.
    """
    arms = [arm for arm in arms if NAMED.get(arm.name) != arm]
    if arms and all(arm.name.startswith(TRIAL) for arm in arms):
        return list(arms[0].settings)
    keys = dict.fromkeys(key for arm in arms for key in arm.settings)
    values = {key: [str(arm.settings[key]) for arm in arms if key in arm.settings] for key in keys}
    least = 2 if len(arms) == 2 and arms[0].settings.keys() == arms[1].settings.keys() else 3
    return [key for key, found in values.items() if len(found) >= least and len(set(found)) >= 2]


def sweep_figures(measured: Measured, space: Sequence[str]) -> list[Figure]:
    """Accuracy by each key of a sweep: a dot for each training, a line through the means where one key was swept."""
    made: list[Figure] = []
    settings = {arm.name: arm.settings for arm in measured.study.arms}
    baseline = by_seed(measured.results, "none", "map50_95")
    for key in space:
        points = [
            (settings[result["arm"]][key], POINTS * result["map50_95"])
            for result in measured.results
            if key in settings[result["arm"]]
        ]
        with drawing(made, f"sweep-{key}", f"mAP50-95 by {key}; a dot is one training.") as axes:
            _scatter(axes, points, lines=len(space) == 1)
            if baseline:
                mean = sum(baseline.values()) / len(baseline)
                axes.axhline(mean, color=COLOURS[0], linestyle="--", linewidth=1.2, label="none (no teacher)")
                axes.legend(fontsize=8)
            axes.set(xlabel=key, ylabel="mAP50-95")
            axes.set_title(key)
    return made


def _scatter(axes: Axes, points: Sequence[tuple[Any, float]], lines: bool) -> None:
    values = list(dict.fromkeys(value if _is_number(value) else str(value) for value, _ in points))
    numbers = all(_is_number(value) for value in values)
    place = {value: value if numbers else index for index, value in enumerate(values)}
    scores = {value: [score for other, score in points if value in (other, str(other))] for value in values}
    for value, found in scores.items():
        axes.plot([place[value]] * len(found), found, "o", color=COLOURS[2], alpha=0.6)
    if lines and values:
        means = [(place[value], float(np.mean(found))) for value, found in scores.items()]
        axes.plot(*zip(*(sorted(means) if numbers else means), strict=True), color=COLOURS[2], linewidth=1.5)
    numeric = [value for value in values if _is_number(value)]
    if not numbers:
        axes.set_xticks(range(len(values)), [str(value) for value in values])
    elif numeric and min(numeric) > 0 and max(numeric) / min(numeric) >= WIDE_RANGE:
        axes.set_xscale("log")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
