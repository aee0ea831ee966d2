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
    """Draw the floor of each case, what we add to it, and the built-in beside it.

    Args:
        rows: As `summarize` returns them.
        output: A .png or .svg file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 0.75 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        seconds = {name: found["median"] for name, found in row["seconds"].items()}
        floor = seconds["plain"] + seconds["teacher"]
        bars = [("builtin", index - 0.2, [seconds.get("builtin", 0.0)], ["#c7553b"])]
        ours = [seconds["plain"], seconds["teacher"], max(0.0, seconds["ours"] - floor)]
        bars.append(("ours", index + 0.2, ours, ["#9aa5b1", "#5b7ea4", "#e0a22e"]))
        for _, place, lengths, colours in bars:
            left = 0.0
            for length, colour in zip(lengths, colours, strict=True):
                axes.barh(place, length, left=left, height=0.36, color=colour)
                left += length
    labels = ("built-in step", "plain step", "teacher to neck", "what ours adds")
    handles = [
        axes.barh([0], [0], color=colour, label=label)
        for label, colour in zip(labels, ("#c7553b", "#9aa5b1", "#5b7ea4", "#e0a22e"), strict=True)
    ]
    axes.set_yticks(range(len(rows)), [row["case"] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step, median")
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(output, dpi=150)
    return output
