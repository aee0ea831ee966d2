"""Unlike teachers, weak ones and their order: the texts say what was measured."""

from __future__ import annotations

import json

import pytest
from committed import REPOSITORY


def test_unlike_teachers_as_measured_teach_and_are_what_the_readme_shows() -> None:
    report = json.loads((REPOSITORY / "benchmarks" / "results" / "heterogeneous.json").read_text())
    measured = report["teachers"]
    assert report["settings"]["ima_weight"] == 1
    assert set(measured) == {"RT-DETR", "RetinaNet"}
    readme = (REPOSITORY / "benchmarks" / "README.md").read_text()
    for name, found in measured.items():
        loss, alike = found["loss"], found["cka"]
        assert loss == sorted(loss, reverse=True), "it falls in every epoch"
        assert all(alike["distilled"][stride] > value for stride, value in alike["plain"].items())
        pairs = [(alike["distilled"][stride], alike["plain"][stride]) for stride in ("8", "16", "32")]
        cells = [f"{own:.2f} ({'without: ' * (not i)}{other:.2f})" for i, (own, other) in enumerate(pairs)]
        kind = name if name == "RT-DETR" else f"{name} (torchvision)"
        assert f"| {kind} | {loss[0]:.2f}, {loss[-1]:.2f} | {' | '.join(cells)} |" in readme


def test_the_order_of_teachers_as_measured_is_what_the_readme_shows() -> None:
    results = REPOSITORY / "benchmarks" / "results"
    measured = json.loads((results / "ranking.json").read_text())
    before = json.loads((results / "ranking-no-gate.json").read_text())
    ungated, accuracy = before["outcomes"], before["accuracy"]
    readme = (REPOSITORY / "benchmarks" / "README.md").read_text()
    reached, without = (
        {name: sum(values) / len(values) for name, values in outcomes.items()}
        for outcomes in (measured["outcomes"], ungated)
    )
    untrained, trained = measured["seen"]["untrained"], measured["seen"]["trained"]
    for name, seen in untrained.items():
        cells = seen["accuracy"], seen["cka"], trained[name]["cka"], reached[name], without[name]
        assert f"| {' | '.join(f'{cell:.3f}' for cell in cells)} |" in readme, name
    assert f"| none | | | | {reached['no teacher']:.3f} | |" in readme
    found = measured["rank_correlation"]
    both = found["untrained"]["accuracy"], found["untrained"]["cka"], found["trained"]["cka"]
    assert f"| {' | '.join(f'{value:+.2f}' for value in both)} | | |" in readme
    *others, widest = sorted(seen["gap"] for seen in trained.values())
    assert f"({widest:.2f} against at most {max(others):.2f}" in readme
    order = sorted(untrained, key=lambda name: -without[name])
    assert order == sorted(untrained, key=lambda name: -accuracy[name]), "README: +1.00 without the gate"
    above = sorted(reached[name] - reached["no teacher"] for name in untrained)
    apart = max(max(seeds) - min(seeds) for seeds in measured["outcomes"].values())
    said = f"they are {above[0]:.3f} to {above[-1]:.3f} above it, where two seeds of one student are up to {apart:.3f}"
    assert above[0] > 0
    assert said in " ".join(readme.split())
    order = sorted(untrained, key=lambda name: -reached[name])
    places = [sorted(order, key=lambda name: -untrained[name]["accuracy"]).index(name) for name in order]
    squares = sum((place - other) ** 2 for place, other in enumerate(places))
    assert both[0] == pytest.approx(1 - 6 * squares / (len(order) ** 3 - len(order))), "Spearman, by hand"


def test_what_a_gate_before_the_features_brings_is_what_the_text_says() -> None:
    results = REPOSITORY / "benchmarks" / "results"
    files = ("ranking.json", "ranking-features-ungated.json")
    measured, before = (json.loads((results / file).read_text()) for file in files)
    gated, ungated = (
        {name: f"{100 * seeds[0]:.1f}" for name, seeds in found["outcomes"].items()} for found in (measured, before)
    )
    text = " ".join((results / "default" / "README.md").read_text().split())
    assert gated["no teacher"] == ungated["no teacher"]
    assert f"students without a teacher have {gated['no teacher']}," in text
    weak, untrained, sure = "yolo26s.yaml:6", "yolo26s.yaml:0", "../shared/weights/bccd_yolo26s.pt"
    assert f"six epochs {ungated[weak]} where features always count" in text
    assert f"and {gated[weak]} where the gate holds them back" in text
    both = f"an untrained one {ungated[untrained]} and {gated[untrained]}, which is still below no teacher"
    other = [100 * measured["outcomes"][name][1] for name in (untrained, "no teacher")]
    assert f"{both} (with seed 1 it is above: {other[0]:.1f}, no teacher {other[1]:.1f});" in text
    short = f"with seed 0 the student of the untrained teacher is, {gated[untrained]} against {gated['no teacher']}"
    assert short in " ".join((REPOSITORY / "benchmarks" / "README.md").read_text().split())
    assert gated[sure] == ungated[sure]
    assert f"both are {gated[sure]}." in text
