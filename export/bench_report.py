"""A benchmark's figures as a table and a plot."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .benchmark import OURS, THEIRS, Benchmark

COLOURS = {OURS: "#1f77b4", THEIRS: "#ff7f0e"}


def table(result: Benchmark) -> str:
    """All figures in Markdown."""
    machine = result.machine
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load']}, {machine['system']}",
        ", ".join(f"{package} {number}" for package, number in machine["versions"].items()),
        *(f"{side}: {file}" for side, file in result.files.items()),
        "",
        "| threads | batch | who | p50 ms | p90 ms | p99 ms | images/s | before, ms an image | after, ms an image "
        "| outside the session | ours / Ultralytics (rounds) |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in result.cells:
        ratios = result.ratios(cell.threads, cell.batch) if cell.side == OURS else []
        lines.append(
            f"| {cell.threads or 'default'} | {cell.batch} | {cell.side} | "
            + " | ".join(f"{value:.1f}" for value in cell.latency.values())
            + f" | {cell.throughput:.1f} | {cell.before:.2f} | {cell.after:.2f}"
            + f" | {cell.outside:.1%} | {_told(ratios)} |"
        )
    titles = ["", *result.cold_start, "ours / Ultralytics"]
    lines += ["", f"| {' | '.join(titles)} |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    starts = {side: float(np.median(times)) for side, times in result.cold_start.items()}
    lines.append(_row("cold start, s", starts, 1, 2))
    lines.append(_row("peak memory, MB", {side: float(size) for side, size in result.memory.items()}, 1e6, 0))
    return "\n".join(lines)


def _told(ratios: list[float]) -> str:
    """The median over rounds, and how far they lie apart."""
    return f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""


def _row(name: str, values: dict[str, float], unit: float, digits: int) -> str:
    figures = [f"{value / unit:.{digits}f}" for value in values.values()]
    ratio = f"{values[OURS] / values[THEIRS]:.3f}" if values.get(THEIRS) else ""
    return "| " + " | ".join([name, *figures, ratio]) + " |"


def plot(result: Benchmark, path: Path) -> Path | None:
    """Draw latency and throughput as bars; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    latency, throughput = figure.subplots(1, 2)
    keys = list(dict.fromkeys((cell.threads, cell.batch) for cell in result.cells))
    sides = list(dict.fromkeys(cell.side for cell in result.cells))
    width = 0.8 / len(sides)
    for number, side in enumerate(sides):
        cells = [cell for cell in result.cells if cell.side == side]
        at = np.arange(len(keys)) + number * width
        p50, p99 = (np.array([cell.latency[q] / cell.batch for cell in cells]) for q in (50, 99))
        latency.bar(at, p50, width, yerr=[np.zeros_like(p50), p99 - p50], capsize=3, color=COLOURS[side], label=side)
        throughput.bar(at, [cell.throughput for cell in cells], width, color=COLOURS[side], label=side)
    for axes, title in (
        (latency, "ms an image (bar: median, whisker: 99th percentile)"),
        (throughput, "images a second"),
    ):
        labels = [f"{threads or 'all'} thread{'' if threads == 1 else 's'}\nbatch {batch}" for threads, batch in keys]
        axes.set_xticks(np.arange(len(keys)) + width * (len(sides) - 1) / 2, labels)
        axes.set_title(title, fontsize=10)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    figure.legend(*throughput.get_legend_handles_labels(), fontsize=9, ncols=len(sides), loc="outside lower center")
    names = " against ".join(dict.fromkeys(Path(file).name for file in result.files.values()))
    figure.suptitle(f"{names}, {result.imgsz[0]}x{result.imgsz[1]} px", fontsize=11)
    figure.savefig(path, dpi=120)
    return path
