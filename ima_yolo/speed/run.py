"""Times cases, writes what was found, and goes on where it was stopped."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ima_yolo.files import write_json
from ima_yolo.speed.case import Case
from ima_yolo.speed.growth import growth_of, plot_growth
from ima_yolo.speed.memory import peak
from ima_yolo.speed.parts import time_parts
from ima_yolo.speed.report import parts_of, peaks_of, plot, summarize, table
from ima_yolo.speed.results import differences, key_of, read_results, today
from ima_yolo.speed.rounds import alternate
from ima_yolo.speed.steps import build, teacher_file

PEAKS = 5  # processes of the first case whose memory is measured


def run(
    cases: Sequence[Case],
    device: torch.device,
    rounds: int,
    folder: Path,
    say: Callable[[str], None],
    in_depth: bool = True,
) -> Path:
    """Time every case that has no such result in the folder yet, then write table, plots and JSON.

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
    kept = read_results(folder, say)
    rows = {}
    for case in cases:
        deep = in_depth and case == cases[0]
        rows[case.file_name] = _row(case, device, rounds, folder, say, deep, kept.pop(case.file_name, None))
    return _report([*rows.values(), *kept.values()], folder)


def _report(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    lines = ["# Time and memory of a training step", "", table(rows), "", *_words(rows), *growth_of(rows)]
    for row in rows:
        lines += [*parts_of(row), *peaks_of(row)]
    plot(rows, folder / "step.png")
    plot_growth(rows, folder / "growth.png")
    report = folder / "step.md"
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def _row(
    case: Case,
    device: torch.device,
    rounds: int,
    folder: Path,
    say: Callable[[str], None],
    in_depth: bool,
    kept: dict[str, Any] | None,
) -> dict[str, Any]:
    """Take a case's result, or measure it: also where one of this name is of something else, or lacks what is asked."""
    path = folder / f"{case.file_name}.json"
    key = key_of(case, device, rounds)
    if kept is not None:
        other = differences(kept, key) + ["depth"] * (in_depth and not kept.get("parts"))
        if not other:
            say(f"{case.name}: measured already, {path}")
            return kept
        say(f"{case.name}: {path} differs in its {', '.join(other)}, and is measured anew")

    def told(line: str) -> None:
        say(f"{case.name}: {line}")

    with tempfile.TemporaryDirectory() as scratch:
        teacher = teacher_file(case.teacher, Path(scratch))
        row = {**_measured(case, device, rounds, told, teacher, PEAKS if in_depth else 1), **key, "date": today()}
        write_json(path, row)  # before the parts: what may go wrong there costs nothing of it
        if in_depth:
            row["parts"] = time_parts(case, device, teacher, rounds, lambda line: told(f"parts, {line}"))
            write_json(path, row)
    return row


def _measured(
    case: Case, device: torch.device, rounds: int, told: Callable[[str], None], teacher: Path, times: int
) -> dict[str, Any]:
    """Time a case's arms, and measure the memory of each in so many processes."""
    threads = torch.get_num_threads()
    told(f"memory of {', '.join(case.arms)}, {times} process{'es' * (times > 1)} each: no line until they are done")
    memory = {arm: _peak(case, arm, device, threads, teacher, times) for arm in case.arms}
    actions: dict[str, Any] = dict(build(case, device))
    row = summarize(case.name, alternate(actions, rounds, device, told), memory)
    for arm in case.arms:
        if arm in actions and actions[arm].has_skipped:
            told(f"gradients of '{arm}' overflowed in counted rounds, whose optimizer took no time")
    if ours := actions.get("ours"):
        row["periodic"] = _periodic(ours, rounds)
    return row


def _periodic(step: Any, rounds: int) -> dict[str, dict[str, float]]:
    """What our step does only every few steps: seconds of one time, median over rounds, and steps between two."""
    found = step.history[-rounds:]
    return {
        name: {"seconds": median(done.get(name, 0.0) for done in found), "every": every}
        for name, every in step.periods.items()
    }


def _peak(case: Case, arm: str, device: torch.device, threads: int, teacher: Path, times: int) -> dict[str, Any]:
    """Medians over processes, and each one's peak: how a process fits its memory together is not always the same."""
    found = [peak(case, arm, device, threads, teacher) for _ in range(times)]
    medians = {key: median(each[key] for each in found) for key in found[0]}
    return {**medians, "peaks": sorted(each["peak"] for each in found)}


def _words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(_origin(row), []).append(row["case"])
    told = [f"{', '.join(cases)}: {where}" if len(places) > 1 else where for where, cases in places.items()]
    return [
        "Medians, ± half the distance between the quartiles. Ratios are medians over rounds in which each was run",
        "once. The floor is a plain step and the teacher's forward pass up to its neck, by PyTorch; the floor as run",
        "is a plain step and the teacher as ours asks it, in the runtime that ours uses. Ours counts what it does",
        "only every few steps (automatic weight, gate, watch) by its share. Memory: peak of the process (CPU) or of",
        "PyTorch's allocations (GPU), ours divided by the built-in's. Measured on",
        *("", *(f"- {line}" for line in told)),
    ]


def _origin(row: Mapping[str, Any]) -> str:
    """Machine, code and day of a result; the last two are missing in those of earlier versions."""
    parts = [f"{key} {value}" for key, value in row["machine"].items()]
    code = row.get("code")
    if isinstance(code, dict):
        parts.append(f"code {code.get('ima_yolo')}")
    if date := row.get("date"):
        parts.append(f"measured {str(date)[:10]}")
    return "; ".join(parts)
