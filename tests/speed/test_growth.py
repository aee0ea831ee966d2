"""The growth of a step's cost with its teacher: exponents by hand, and which cases are compared and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ima_yolo.speed.growth import exponents, growth_of, plot_growth, points


def row(case: str, plain: float, teacher: float, ours: float, builtin: float | None = None) -> dict[str, Any]:
    seconds = {"plain": plain, "teacher": teacher, "ours": ours, **({"builtin": builtin} if builtin else {})}
    return {"case": case, "seconds": {name: {"median": value, "spread": 0.0} for name, value in seconds.items()}}


ROWS = [
    row("n <- m, 640 px, batch 8", 4.0, 4.0, 8.0, 10.0),
    row("n <- m, 320 px, batch 8", 1.0, 1.0, 2.0, 4.0),
    row("n <- m, 320 px, batch 16", 2.0, 2.0, 3.0, 14.0),
    row("n <- m, 320 px, batch 8, ima_teacher_runtime=onnx", 1.0, 1.0, 9.0, 4.0),
    row("n <- rtdetr, 320 px, batch 8", 1.0, 3.0, 2.0),
]


def test_exponents_by_hand() -> None:
    """What is added to n <- m grows from 1 to 4 with the size, as the teacher does, and not at all with the batch."""
    found = exponents(points(ROWS))
    ends = [((low.imgsz, low.batch), (high.imgsz, high.batch)) for low, high, _ in found]
    assert sorted(ends) == [((320, 8), (320, 16)), ((320, 8), (640, 8))]
    grown = {(high.imgsz, high.batch): by_arm for _, high, by_arm in found}
    assert grown[640, 8] == pytest.approx({"ours": 1.0, "builtin": 0.5})
    assert grown[320, 16] == pytest.approx({"ours": 0.0, "builtin": 2.0})


def test_cases_with_other_settings_are_left_out() -> None:
    assert [point.added["ours"] for point in points(ROWS)] == [1.0, 1.0, 4.0, 1.0]
    assert "builtin" not in points(ROWS)[-1].added


def test_the_report_says_it() -> None:
    lines = growth_of(ROWS)
    assert "| n <- m | 320 px, batch 8 | 640 px, batch 8 | 1.00 | 0.50 |" in lines
    assert growth_of(ROWS[3:]) == []
    slower = [ROWS[1], row("n <- m, 640 px, batch 8", 4.0, 4.0, 3.0, 10.0)]
    assert growth_of(slower)[-1].endswith("| - | 0.50 |"), "nothing was added: no exponent"


def test_the_plot_tells_sizes_batches_and_no_other_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    drawn: list[Any] = []
    scatter = Axes.scatter
    monkeypatch.setattr(
        Axes, "scatter", lambda *args, **more: (drawn.append((args[1], args[2], more)), scatter(*args, **more))[1]
    )
    path = plot_growth(ROWS, tmp_path / "growth.png")
    assert path is not None
    assert path.stat().st_size > 10_000
    markers = {teacher: more["marker"] for teacher, _, more in drawn if teacher != []}
    assert markers[1.0] == markers[2.0] != markers[4.0]
    assert 8.0 not in [added for _, added, _ in drawn], "that of the other runtime"
    assert plot_growth(ROWS[3:4], tmp_path / "none.png") is None
