"""What the device gains, and what int8 and the demo cost: the texts say what was measured."""

from __future__ import annotations

import json

import pytest
from committed import REPOSITORY


def test_the_edge_as_measured_meets_its_aims_but_for_two_that_are_told() -> None:
    """Every row of results/edge.json and edge.md follows from the figures beneath, and what is missed is written."""
    from edge import PARTS, THREADS, _read, aims

    folder = REPOSITORY / "benchmarks" / "results"
    results, text = _read(folder / "edge.json"), (folder / "edge.md").read_text()
    rows = aims(results)
    assert list(results) == list(PARTS.values())
    assert len(rows) == 2 + 3 * 2 * len(THREADS) + 1 + 3 * 2
    stored = json.loads((folder / "edge.json").read_text())["aims"]
    assert [row["aim"] for row in stored] == [row[0] for row in rows]
    assert [row["measured"] for row in stored] == pytest.approx([row[1] for row in rows])
    for what, value, bound, met, rounds in rows:
        assert f"| {what} | {value:.3f} | {bound} | {'yes' if met else 'no'} | {rounds} |" in text
    missed = {what: value for what, value, _, met, _ in rows if not met}
    assert list(missed) == [
        "throughput over Ultralytics', 224 px, 1 thread, batch 8",
        "int8 throughput over Ultralytics' on the float file, 320 px, 2 threads",
    ]
    told = " ".join((REPOSITORY / "benchmarks" / "README.md").read_text().split())
    in_float, in_int8 = (f"{value:.2f}" for value in missed.values())
    assert f"with one thread and batch 8 at 224 px the ratio is {in_float} (aim 1.08)" in told
    assert f"that of the int8 file is {in_int8} (aim 1.6" in told
    said = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"pictures a call at 224 px it is {in_float} times as fast (aim 1.08)" in said
    assert f"int8 file at 320 px {in_int8} times as fast as it is with the float file (aim 1.6)" in said


def test_int8_as_measured_keeps_its_accuracy_and_is_what_the_readme_shows() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    for name in ("int8_bccd", "int8_coco128"):
        measured = json.loads((REPOSITORY / "benchmarks" / "results" / f"{name}.json").read_text())
        rows = {row["file"]: row for row in measured["files"]}
        whole = rows["float"]
        for file, row in rows.items():
            if file.startswith("trained"):
                continue
            judge = rows["float, dynamic"] if file.endswith("dynamic") else whole
            assert judge["mAP50-95(B)"] - row["mAP50-95(B)"] <= 0.005, (name, file)
            if file.startswith("int8"):
                assert row["bytes"] < 0.5 * whole["bytes"], (name, file)  # with up to 32 of 78 layers in float
        row = rows["int8, percentile"]
        figures = [f"{file['mAP50-95(B)']:.3f}" for file in (whole, row)]
        figures += [f"{file['bytes'] / 1e6:.1f}" for file in (whole, row)]
        figures += [f"{file['milliseconds']:.1f}" for file in (whole, row)]
        assert f"| {' | '.join(figures)} | {len(row['in_float'])} of {row['layers']} |" in readme, name
        assert row["milliseconds"] < whole["milliseconds"], name


def test_the_demo_as_measured_keeps_its_promise_and_is_what_the_readme_shows() -> None:
    measured = json.loads((REPOSITORY / "benchmarks" / "results" / "demo.json").read_text())
    models = {model["name"]: model for model in measured["models"]}
    assert measured["seconds"] <= 360
    assert models["teacher"]["map50"] >= 0.6
    readme = (REPOSITORY / "README.md").read_text()
    assert f"It took {measured['seconds']} s on two cores" in readme
    for model in models.values():
        row = f"| {model['map50_95']:.3f} | {model['map50']:.3f} | {model['milliseconds_per_image']:.1f} |"
        assert row in readme, row
