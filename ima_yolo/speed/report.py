"""What was timed, as JSON with the machine, as a table and as a plot."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
import ultralytics

from ima_yolo.export.machine import processor
from ima_yolo.speed.rounds import ratio

FLOOR = ("plain", "teacher")
BARS = {
    "builtin": ("Ultralytics' distillation", "#c7553b"),
    "ours": ("ours", "#e0a22e"),
    "plain": ("plain step", "#9aa5b1"),
    "teacher": ("+ teacher to its neck: the floor", "#5b7ea4"),
}
"""Label and colour of what is drawn."""


def machine(device: torch.device) -> dict[str, str]:
    """Describe where and with what was measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": f"{device.type}: {name}",
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "torch": torch.__version__,
        "ultralytics": ultralytics.__version__,
    }


def summarize(
    name: str, seconds: Mapping[str, list[float]], memory: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Medians, spread and ratios of a case.

    Args:
        name: Of the case.
        seconds: As `ima_yolo.speed.rounds.alternate` returns them.
        memory: As `ima_yolo.speed.memory.peak` returns them, by arm; may be empty.
    """
    ratios = {"ours / floor": ratio(seconds, "ours", FLOOR)}
    if "builtin" in seconds:
        ratios["ours / builtin"] = ratio(seconds, "ours", ("builtin",))
    if {"ours", "builtin"} <= memory.keys():
        ratios["memory"] = memory["ours"]["peak"] / memory["builtin"]["peak"]
    return {
        "case": name,
        "seconds": {key: {"median": median(values), "spread": _spread(values)} for key, values in seconds.items()},
        "ratios": ratios,
        "memory": {key: dict(value) for key, value in memory.items()},
        "rounds": len(seconds["ours"]),
    }


def _spread(values: Sequence[float]) -> float:
    """Distance between the quartiles."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4)
    return high - low


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The cases as a Markdown table: medians of seconds a step, ratios in the same rounds, and peak memory."""
    columns = ("plain", "teacher", "builtin", "ours")
    ratios = ("ours / builtin", "ours / floor", "memory")
    lines = [["case", *(f"{name} (s)" for name in columns), *ratios]]
    lines.append(["---", *["---:"] * (len(columns) + len(ratios))])
    for row in rows:
        timed = [row["seconds"].get(name) for name in columns]
        cells = ["-" if found is None else f"{found['median']:.3f} ± {found['spread'] / 2:.3f}" for found in timed]
        quotients = [row["ratios"].get(name) for name in ratios]
        lines.append([row["case"], *cells, *("-" if found is None else f"{found:.3f}" for found in quotients)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parts_table(parts: Mapping[str, list[float]], step: float) -> str:
    """The parts of a step as a Markdown table.

    Args:
        parts: Seconds by part.
        step: Median seconds of our whole step.
    """
    lines = ["| part | ms | share of our step |", "| --- | ---: | ---: |"]
    for name, values in parts.items():
        found = median(values)
        lines.append(f"| {name} | {1000 * found:.1f} | {100 * found / step:.1f}% |")
    return "\n".join(lines)


def plot(rows: Sequence[Mapping[str, Any]], output: Path) -> Path:
    """Draw the built-in's step, ours, and the floor of each case, one below the other.

    Args:
        rows: As `summarize` returns them.
        output: A .png or .svg file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.4 + 0.9 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        seconds = {name: found["median"] for name, found in row["seconds"].items()}
        bars = [
            (index - 0.27, "builtin", 0.0),
            (index, "ours", 0.0),
            (index + 0.27, "plain", 0.0),
            (index + 0.27, "teacher", seconds["plain"]),
        ]
        for place, name, left in bars:
            drawn = axes.barh(place, seconds.get(name, 0.0), left=left, height=0.24, color=BARS[name][1])
            if name in ("builtin", "ours") and name in seconds:
                axes.bar_label(drawn, fmt=" %.2f", fontsize=9)
    handles = [axes.barh([0], [0], color=colour, label=label) for label, colour in BARS.values()]
    axes.set_yticks(range(len(rows)), [row["case"].replace(", ima_", "\nima_") for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step, median")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(BARS), frameon=False)
    return _saved(figure, axes, output)


def plot_growth(rows: Sequence[Mapping[str, Any]], output: Path) -> Path:
    """Draw what a teacher adds to a plain step against its own forward pass, over teachers, batches and image sizes.

    Both scales are logarithmic: what grows in proportion to the forward pass lies on a parallel to its line.

    Args:
        rows: As `summarize` returns them.
        output: A .png or .svg file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    ends: list[float] = []
    for name in ("builtin", "ours"):
        found = [row["seconds"] for row in rows if name in row["seconds"]]
        looks = [seconds["teacher"]["median"] for seconds in found]
        added = [seconds[name]["median"] - seconds["plain"]["median"] for seconds in found]
        label, colour = BARS[name]
        axes.scatter(looks, added, s=36, color=colour, label=label, zorder=3)
        ends += looks
    line = [min(ends), max(ends)]
    axes.plot(line, line, color=BARS["teacher"][1], label="the teacher's forward pass itself")
    axes.set_xlabel("the teacher's forward pass up to its neck, seconds (PyTorch, float32)")
    axes.set_ylabel("added to a plain step, seconds")
    for scale, axis in ((axes.set_xscale, axes.xaxis), (axes.set_yscale, axes.yaxis)):
        scale("log", base=2)
        axis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.legend(frameon=False)
    return _saved(figure, axes, output)


def _saved(figure: Any, axes: Any, output: Path) -> Path:
    """Write a figure, without the frame's upper and right side."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(output, dpi=150)
    return output
