"""Times cases, writes what was found, and goes on where it was stopped."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ima_yolo.files import write_json
from ima_yolo.speed.memory import peak
from ima_yolo.speed.parts import build_parts
from ima_yolo.speed.report import machine, parts_table, plot, plot_growth, summarize, table
from ima_yolo.speed.rounds import alternate
from ima_yolo.speed.steps import ARMS, Case, build, teacher_file

PEAKS = 5  # processes of the first case whose memory is measured


def run(
    cases: Sequence[Case],
    device: torch.device,
    rounds: int,
    folder: Path,
    say: Callable[[str], None],
    in_depth: bool = True,
) -> Path:
    """Time every case that has no result of this machine in the folder yet, then write table, plot and JSON.

    Args:
        cases: Pairs of models.
        device: Where.
        rounds: Alternating rounds a case, besides one that is not counted.
        folder: Where results are kept, one JSON a case; the report is of all that lie there.
        say: Receives lines of progress.
        in_depth: Whether the parts of the first case's step are timed as well, and its memory several times.

    Returns:
        The Markdown report.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(case, device, rounds, folder, say, in_depth and case == cases[0]) for case in cases]
    asked = {f"{case.file_name}.json" for case in cases}
    others = sorted(file for file in folder.glob("*.json") if file.name not in asked)
    rows += [json.loads(file.read_text(encoding="utf-8")) for file in others]
    lines = ["# Time and memory of a training step", "", table(rows), "", *_words(rows)]
    for row in rows:
        if parts := row.get("parts"):
            lines += ["", f"## Parts of our step: {row['case']}", "", parts]
    plot(rows, folder / "step.png")
    plot_growth(rows, folder / "growth.png")
    report = folder / "step.md"
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def _row(
    case: Case, device: torch.device, rounds: int, folder: Path, say: Callable[[str], None], in_depth: bool
) -> dict[str, Any]:
    """Read a case's result, or measure it: also where a file of this name is of other models or another machine."""
    path = folder / f"{case.file_name}.json"
    made = {"models": [case.student, case.teacher], "machine": machine(device)}
    if path.exists():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(kept.get(key, value) == value for key, value in made.items()):
            say(f"{case.name}: measured already, {path}")
            return kept
        say(f"{case.name}: {path} is of other models or of another machine, and is measured anew")
    arms = [arm for arm in ARMS if arm != "builtin" or case.builtin_takes]
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        teacher = teacher_file(case.teacher, Path(scratch))
        memory = {arm: _peak(case, arm, device, threads, teacher, PEAKS if in_depth else 1) for arm in arms}
    seconds = alternate(build(case, device), rounds, device, lambda line: say(f"{case.name}: {line}"))
    row = {**summarize(case.name, seconds, memory), **made}
    if in_depth:
        row["parts"] = _parts(case, device, rounds, median(seconds["ours"]), say)
    write_json(path, row)
    return row


def _peak(case: Case, arm: str, device: torch.device, threads: int, teacher: Path, times: int) -> dict[str, float]:
    """Median over processes: how a process fits its memory together is not the same each time."""
    found = [peak(case, arm, device, threads, teacher) for _ in range(times)]
    return {key: median(each[key] for each in found) for key in found[0]}


def _parts(case: Case, device: torch.device, rounds: int, step: float, say: Callable[[str], None]) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        parts = build_parts(case, device, teacher_file(case.teacher, Path(scratch)))
    return parts_table(alternate(parts, rounds, device, lambda line: say(f"{case.name}: parts, {line}")), step)


def _words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault("; ".join(f"{key} {value}" for key, value in row["machine"].items()), []).append(row["case"])
    told = [f"{', '.join(cases)}: {where}" if len(places) > 1 else where for where, cases in places.items()]
    return [
        "Medians, ± half the distance between the quartiles. Ratios are medians over rounds in which each was run",
        "once. The floor is a plain step and the teacher's forward pass up to its neck. Memory: peak of the process",
        "(CPU) or of PyTorch's allocations (GPU), ours divided by the built-in's. Measured on",
        *("", *(f"- {line}" for line in told)),
    ]
