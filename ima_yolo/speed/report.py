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
FLOOR_AS_RUN = ("plain", "teacher as run")
BARS = {
    "builtin": ("Ultralytics' distillation", "#c7553b"),
    "ours": ("ours", "#e0a22e"),
    "plain": ("plain step", "#9aa5b1"),
    "teacher": ("+ teacher to its neck: the floor", "#5b7ea4"),
}
"""Label and colour of what is drawn."""
LONGEST = 60  # characters of a line beside a plot


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


def summarize(name: str, seconds: Mapping[str, list[float]], memory: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Medians, spread and ratios of a case.

    Args:
        name: Of the case.
        seconds: As `ima_yolo.speed.rounds.alternate` returns them.
        memory: MiB by arm, "peak" and "added" as `ima_yolo.speed.memory.peak` returns them; may be empty.
    """
    ratios = {
        "ours / floor": ratio(seconds, "ours", FLOOR),
        "ours / floor as run": ratio(seconds, "ours", FLOOR_AS_RUN),
    }
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
    """The cases as a Markdown table: medians of seconds a step, ratios in the same rounds, and peak memory.

    What a result of an earlier version lacks is a "-".
    """
    columns = ("plain", "teacher", "teacher as run", "builtin", "ours")
    ratios = ("ours / builtin", "ours / floor", "ours / floor as run", "memory")
    lines = [["case", *(f"{name} (s)" for name in columns), *ratios]]
    lines.append(["---", *["---:"] * (len(columns) + len(ratios))])
    for row in rows:
        timed = [row["seconds"].get(name) for name in columns]
        cells = ["-" if found is None else f"{found['median']:.3f} ± {found['spread'] / 2:.3f}" for found in timed]
        quotients = [row["ratios"].get(name) for name in ratios]
        lines.append([row["case"], *cells, *("-" if found is None else f"{found:.3f}" for found in quotients)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parts_table(parts: Mapping[str, float], step: float) -> str:
    """The parts of a step as a Markdown table.

    Args:
        parts: Seconds by part.
        step: Seconds of our whole step.
    """
    lines = ["| part | ms | share of our step |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {1000 * found:.1f} | {100 * found / step:.1f}% |" for name, found in parts.items()]
    return "\n".join(lines)


def parts_of(row: Mapping[str, Any]) -> list[str]:
    """Lines on the parts of a case's step; none where they were not timed."""
    found = row.get("parts")
    if not found:
        return []
    lines = ["", f"## Parts of our step: {row['case']}", ""]
    if isinstance(found, str):  # of an earlier version: a table
        return [*lines, found]
    step = row["seconds"]["ours"]["median"]
    within, alone = parts_table(found["step"], step), parts_table(found["alone"], step)
    return [*lines, within, "", "Timed alone, outside of a step:", "", alone]


def peaks_of(row: Mapping[str, Any]) -> list[str]:
    """A line on how far the peaks of several processes lie apart; none where each arm ran in one."""
    apart = {arm: found["peaks"] for arm, found in row["memory"].items() if len(found.get("peaks", [])) > 1}
    if not apart:
        return []
    told = ", ".join(f"{arm} {min(peaks):.0f} to {max(peaks):.0f}" for arm, peaks in apart.items())
    return ["", f"Peaks in MiB of {len(next(iter(apart.values())))} processes each: {told}."]


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
    names = ["\n".join(line[:LONGEST] for line in row["case"].replace(", ima_", "\nima_").split("\n")) for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step, median")
    figure.legend(handles=handles, loc="outside lower center", ncols=len(BARS), frameon=False)
    return save_figure(figure, axes, output)


def save_figure(figure: Any, axes: Any, output: Path) -> Path:
    """Write a figure and return its file, without the frame's upper and right side."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(output, dpi=150)
    return output
