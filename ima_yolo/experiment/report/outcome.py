"""What a report says first: what was compared, the verdict in words, the table, and what to mind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ima_yolo.experiment.arms import TEACHER
from ima_yolo.experiment.report.figures import Figure
from ima_yolo.experiment.report.measured import Measured, attempt, validation
from ima_yolo.experiment.report.parts import Section, Table
from ima_yolo.experiment.tables import (
    POINTS,
    by_seed,
    comparison_cells,
    conclusions,
    mean_text,
    not_shown,
    nothing_to_compare,
    same_conditions,
)

MOST_SENTENCES = 14  # of the verdict; where there are more, only the best arms are spoken of
MOST_BEST = 3
MANY_INTERVALS = 5


def outcome(measured: Measured, rows: Sequence[Mapping[str, Any]], made: Sequence[Figure]) -> Section:
    """The verdict in words, the table, and what keeps the pairs from being alike."""
    heads, cells = comparison_cells(rows)
    said = conclusions(rows)
    if len(said) > MOST_SENTENCES:  # a sweep's table says the rest
        best = [row for row in sorted(rows, key=lambda row: row["mean"], reverse=True) if row["against"]]
        said = conclusions(best[:MOST_BEST])
    points = [*said, *(f"Mind: {fault}." for fault in same_conditions(measured.results, measured.study.common))]
    told = [*nothing_to_compare(measured.results), *not_shown(measured.study.not_of_this_call())]
    points += [f"Mind: {one}." for one in told]
    jobs = list(measured.study.jobs())
    if missing := len(jobs) - len(measured.results):
        points.append(f"Mind: {missing} of {len(jobs)} trainings are not finished.")
    intervals = sum(found is not None and found.low is not None for row in rows for found in row["against"].values())
    if intervals >= MANY_INTERVALS:
        points.append(f"Mind: of {intervals} intervals at 95%, one in twenty misses the truth by chance.")
    if measured.study.made_of.get("holdout"):
        points.append(
            "Evaluated on a held-out part of train; a teacher that was trained on it looks better than it is."
        )
    text = [
        subject(measured),
        "Each arm trains the same student from the same initial weights on the same images in the same order, seed by "
        "seed. Differences are paired by seed; the interval is Student's t at 95%, and what stands after ± is half of "
        "that of a mean over seeds. mAP in points, 0 to 100, of each "
        "training's best epoch by the images it is evaluated on; the last epoch's stands beside it. Minutes are what a "
        "training took, beside whatever else ran.",
    ]
    tables = [Table(heads, cells, (1, 2, len(heads) - 1)), _other_scores(measured)]
    return Section("Outcome", text, points, tables, made)


def subject(measured: Measured) -> str:
    """Which student learns from which teacher on which data, for how long, and on how many images it is evaluated."""
    study = measured.study
    made = {role: str((study.made_of.get(role) or {}).get("name", "-")) for role in ("student", TEACHER)}
    data = "/".join(Path(str(study.places.get("data", "-"))).parts[-2:])
    images: list[str] = []
    attempt("number of images", lambda: images.append(f"{len(validation(study)[0]):,} images"), lambda _: None)
    share = f" (a held-out {study.made_of['holdout']:g} of train)" if study.made_of.get("holdout") else ""
    budget = " at ".join(
        f"{study.common[key]} {unit}" for key, unit in (("epochs", "epochs"), ("imgsz", "px")) if key in study.common
    )
    return (
        ", ".join(
            part
            for part in (
                f"Student {made['student']}, teacher {made[TEACHER]}, data {data}",
                f"evaluated on {images[0]}{share}" if images else "",
                budget,
            )
            if part
        )
        + "."
    )


def _other_scores(measured: Measured) -> Table:
    keys = {"mAP50-95": "map50_95", "mAP50": "map50", "mAP75": "map75", "mAP50-95, last epoch": "last_map50_95"}
    rows = [
        [arm, *(mean_text(list(by_seed(measured.results, arm, key).values())) for key in keys.values())]
        for arm in measured.arms
    ]
    teacher = measured.efficiency.get(TEACHER)
    if teacher is not None and teacher.map50_95 is not None and teacher.map50 is not None:
        rows.append([TEACHER, f"{POINTS * teacher.map50_95:.2f}", f"{POINTS * teacher.map50:.2f}", "", ""])
    return Table(["arm", *keys], rows, (1, 2, 3, 4))
