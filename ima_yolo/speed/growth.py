"""How what a teacher adds to a step grows with the teacher's own forward pass: exponents and a plot."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ima_yolo.speed.report import BARS, save_figure

NAME = re.compile(r"(?P<pair>.+), (?P<imgsz>\d+) px, batch (?P<batch>\d+)")
MARKERS = "osD^vP*X"


class Point(NamedTuple):
    """A case with the default settings, in seconds a step."""

    pair: str
    imgsz: int
    batch: int
    teacher: float
    added: dict[str, float]


def points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """The cases whose settings are all the defaults; others would mix what is asked with what it is asked of.

    Args:
        rows: As `ima_yolo.speed.report.summarize` returns them.
    """
    found = []
    for row in rows:
        if (name := NAME.fullmatch(row["case"])) is None:  # a setting follows the batch
            continue
        seconds = {arm: values["median"] for arm, values in row["seconds"].items()}
        added = {arm: seconds[arm] - seconds["plain"] for arm in ("builtin", "ours") if arm in seconds}
        found.append(Point(name["pair"], int(name["imgsz"]), int(name["batch"]), seconds["teacher"], added))
    return sorted(found, key=lambda point: point[:3])


def exponents(found: Sequence[Point]) -> list[tuple[Point, Point, dict[str, float]]]:
    r"""Find how fast what is added grows between two sizes of a pair at one batch, and two batches at one size.

    .. math:: e = \log(a_2 / a_1) \, / \, \log(t_2 / t_1)

    with a added to a plain step and t the teacher's forward pass: 1 grows in proportion, below 1 slower.

    Args:
        found: As `points` returns them.

    Returns:
        The smaller case, the next larger one, and e by arm where it can be told.
    """
    lines: dict[tuple[Any, ...], list[Point]] = {}
    for point in found:
        lines.setdefault((point.pair, "batch", point.batch), []).append(point)
        lines.setdefault((point.pair, "size", point.imgsz), []).append(point)
    return [
        (low, high, {arm: grown for arm in low.added if (grown := _exponent(low, high, arm)) is not None})
        for line in lines.values()
        for low, high in pairwise(line)
    ]


def _exponent(low: Point, high: Point, arm: str) -> float | None:
    if low.added[arm] <= 0 or high.added.get(arm, 0.0) <= 0 or low.teacher == high.teacher:
        return None
    return math.log(high.added[arm] / low.added[arm]) / math.log(high.teacher / low.teacher)


def growth_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines on the growth between the cases; none where no two can be compared."""
    found = exponents(points(rows))
    if not found:
        return []
    lines = ["", "## Growth", "", "Exponent of what is added to a plain step over the teacher's forward pass", ""]
    lines += ["| pair | from | to | ours | builtin |", "| --- | --- | --- | ---: | ---: |"]
    for low, high, grown in found:
        ends = [f"{point.imgsz} px, batch {point.batch}" for point in (low, high)]
        cells = [f"{grown[arm]:.2f}" if arm in grown else "-" for arm in ("ours", "builtin")]
        lines.append(f"| {' | '.join([low.pair, *ends, *cells])} |")
    return lines


def plot_growth(rows: Sequence[Mapping[str, Any]], output: Path) -> Path | None:
    """Draw what a teacher adds to a plain step against its own forward pass, over teachers, batches and image sizes.

    Both scales are logarithmic: what grows in proportion to the forward pass lies on a parallel to its line. A marker
    is a size, a number beside it the batch, and lines join the cases of a pair that `exponents` compares.

    Args:
        rows: As `ima_yolo.speed.report.summarize` returns them.
        output: A .png or .svg file.

    Returns:
        The file; None where no case has the default settings.
    """
    from matplotlib.figure import Figure

    found = points(rows)
    if not found:
        return None
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axes = figure.subplots()
    markers = dict(zip(sorted({point.imgsz for point in found}), MARKERS * len(found), strict=False))
    for point in found:
        for arm, added in point.added.items():
            axes.scatter(point.teacher, added, s=40, color=BARS[arm][1], marker=markers[point.imgsz], zorder=3)
            axes.annotate(str(point.batch), (point.teacher, added), (5, -9), textcoords="offset points", fontsize=8)
    for low, high, grown in exponents(found):
        for arm in grown:
            ends = (low.teacher, high.teacher), (low.added[arm], high.added[arm])
            axes.plot(*ends, color=BARS[arm][1], linewidth=0.8, alpha=0.5)
    line = [min(point.teacher for point in found), max(point.teacher for point in found)]
    axes.plot(line, line, color=BARS["teacher"][1], label="the teacher's forward pass itself")
    for arm in ("builtin", "ours"):
        axes.scatter([], [], s=40, color=BARS[arm][1], label=BARS[arm][0])
    for imgsz, marker in markers.items():
        axes.scatter([], [], s=40, color="#555555", marker=marker, label=f"{imgsz} px; the number is the batch")
    axes.set_xlabel("the teacher's forward pass up to its neck, seconds (PyTorch)")
    axes.set_ylabel("added to a plain step, seconds")
    for scale, axis in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
        scale("log", base=2)
        axis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.legend(frameon=False)
    return save_figure(figure, axes, output)
