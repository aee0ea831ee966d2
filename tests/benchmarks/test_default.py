"""How the default was chosen: each table and sentence says what the committed trainings say."""

from __future__ import annotations

import json
import re

import pytest
from committed import REPOSITORY, spelled, three_seeds

from ima_yolo.config import validate


def test_the_study_with_a_teacher_that_saw_no_judge_is_what_the_text_says() -> None:
    from ima_yolo.experiment.statistics import paired

    folder = REPOSITORY / "benchmarks" / "results" / "default"
    text = (folder / "README.md").read_text()
    points: dict[str, dict[int, float]] = {}
    for arm in ("none", "ima"):
        found = three_seeds(folder / "bccd_unseen", arm)
        points[arm] = {one["seed"]: 100 * one["map50_95"] for one in found}
        assert f"| `{arm}` | {' | '.join(f'{value:.1f}' for value in points[arm].values())} |" in text
        assert f"mAP50 is {100 * sum(one['map50'] for one in found) / 3:.1f} for both" in text
    gain = paired(points["ima"], points["none"])
    assert gain is not None
    assert f"{gain.mean:+.1f} points, each seed on its side, with a 95% interval from {gain.low:.1f} to" in text


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        (
            "blood cells, 62 images judge, 30 epochs",
            ("bccd_unseen/none", "bccd_unseen/ima", "bccd_balance/half", "bccd_ratio/half"),
        ),
        (
            "helmets, 400 images judge, 24 epochs",
            (*(f"helmet_holdout/{arm}" for arm in ("none", "ima", "half")), "helmet_ratio/half"),
        ),
    ],
)
def test_what_the_default_was_chosen_by_is_what_the_readme_says(name: str, folders: tuple[str, ...]) -> None:
    from ima_yolo.experiment.statistics import paired

    results = REPOSITORY / "benchmarks" / "results" / "default"
    arms = [three_seeds(results, arm) for arm in folders]
    points = [{one["seed"]: 100 * one["map50_95"] for one in found} for found in arms]
    assert len({tuple(one["initial_digest"] for one in found) for found in arms}) == 1, "the same students"
    assert [found[0]["settings"].get("ima_balance") for found in arms] == [None, None, 0.5, None]
    assert [found[0]["settings"].get("ima_weight_ratio") for found in arms] == [None, None, None, 0.5]
    default = validate({"teacher": "t.pt"}).with_heads(usable=True, watched=True)
    assert (default.ima_balance, default.ima_weight_ratio) == (0.5, 0.5)
    gain = paired(points[3], points[0])
    assert gain is not None
    means = " | ".join(f"{sum(of_arm.values()) / 3:.1f}" for of_arm in points)
    row = f"| {name} | {means} | {gain.mean:+.1f} "
    readme = (REPOSITORY / "README.md").read_text()
    said = readme[readme.index(row) + len(row) :].splitlines()[0].replace("95% interval ", "")
    assert said == f"({gain.low:+.1f} to {gain.high:+.1f}) |"
    text = (results / "README.md").read_text()
    for of_arm in points:
        assert f"| {' | '.join(f'{value:.1f}' for value in of_arm.values())} |" in text


HALVES = {
    "blood cells": {
        "none": "bccd_unseen/none",
        "both": "bccd_balance/half",
        "features": "bccd_parts/features",
        "heads": "bccd_parts/heads",
        "larger": "bccd_ratio/half",
    },
    "helmets": {
        "none": "helmet_holdout/none",
        "both": "helmet_holdout/half",
        "features": "helmet_parts/features",
        "heads": "helmet_parts/heads",
        "larger": "helmet_ratio/half",
    },
}
"""Where the trainings are: `both` with `ima_weight_ratio=0.1`, `larger` with 0.5."""


def halves(name: str) -> dict[str, dict[int, float]]:
    """mAP50-95 in points of each half of the default, of both and of none, by seed."""
    results = REPOSITORY / "benchmarks" / "results" / "default"
    found = {arm: three_seeds(results, place) for arm, place in HALVES[name].items()}
    assert len({tuple(one["data_digest"] for one in of_arm) for of_arm in found.values()}) == 1, "the same images"
    assert len({tuple(one["initial_digest"] for one in of_arm) for of_arm in found.values()}) == 1, "the same students"
    return {arm: {one["seed"]: 100 * one["map50_95"] for one in of_arm} for arm, of_arm in found.items()}


@pytest.mark.parametrize("name", HALVES)
def test_what_each_half_of_the_default_brings_is_what_the_texts_say(name: str) -> None:
    from ima_yolo.experiment.statistics import paired

    points = halves(name)
    text = (REPOSITORY / "benchmarks" / "results" / "default" / "README.md").read_text()
    text = text[text.index(f"What each half brings, {name}") :]
    for arm, label in (("features", "Instance Mask Alignment alone"), ("heads", "class scores and boxes alone")):
        gain = paired(points[arm], points["none"])
        assert gain is not None
        cells = " | ".join(f"{value:.1f}" for value in points[arm].values())
        assert f"| `{arm}`: {label} | {cells} | {spelled(gain)} |" in text
    whole, rest = (paired(points["both"], points[other]) for other in ("none", "heads"))
    assert whole is not None
    cells = " | ".join(f"{value:.1f}" for value in points["both"].values())
    assert f"| both, the default then | {cells} | {spelled(whole)} |" in text
    assert rest is not None
    said = f"{spelled(rest)} on the {name}"
    assert said in " ".join(text[text.index("Both, at that ratio, against the heads alone") :].split())
    means = " | ".join(f"{sum(points[arm].values()) / 3:.1f}" for arm in ("none", "features", "heads", "larger"))
    row = f"| {name} | {means} | {spelled(paired(points['larger'], points['heads']))} |"
    assert row in (REPOSITORY / "README.md").read_text()


def test_what_the_halves_bring_on_both_data_sets_is_what_the_readme_says() -> None:
    from ima_yolo.experiment.statistics import averaged, paired

    every = [halves(name) for name in HALVES]
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    text = " ".join((REPOSITORY / "benchmarks" / "results" / "default" / "README.md").read_text().split())
    for half, other, file, form in (
        ("both", "heads", text, "and {} ({} to {}) over both"),
        ("larger", "heads", readme, "not shown, nor is it over both ({}, {} to {})"),
        ("larger", "heads", text, "alone it is {} ({} to {}) over both"),
        ("larger", "both", text, "a ratio of 0.1 {} ({} to {}): no evidence over both"),
        ("features", "none", readme, "bring {} ({} to {}), which is no evidence yet"),
        ("features", "none", text, "they bring {} ({} to {}) over both"),
        ("heads", "none", readme, "without features they bring {} ({} to {})"),
        ("heads", "none", text, "most of it (alone {} ({} to {}) over both)"),
    ):
        mean = averaged([gain for points in every if (gain := paired(points[half], points[other]))])
        assert mean is not None
        assert mean.low is not None
        assert (mean.low < 0 < mean.high) == (half != "heads"), "evidence is of the heads alone"
        assert form.format(*(f"{value:+.1f}" for value in (mean.mean, mean.low, mean.high))) in file


def test_a_larger_weight_of_the_features_brings_what_the_text_says() -> None:
    from ima_yolo.experiment.statistics import paired

    results = REPOSITORY / "benchmarks" / "results" / "default"
    text = " ".join((results / "README.md").read_text().split())
    evidence = {}
    for name, places in HALVES.items():
        assert [one["settings"] for one in three_seeds(results, places["larger"])] == [{"ima_weight_ratio": 0.5}] * 3
        points = halves(name)
        against = {other: paired(points["larger"], points[other]) for other in ("none", "heads", "both")}
        cells = [f"{value:.1f}" for value in points["larger"].values()] + [spelled(gain) for gain in against.values()]
        assert f"| {name} | {' | '.join(cells)} |" in text
        evidence[name] = (gain := against["heads"]) is not None and gain.low is not None and gain.low > 0
    assert evidence == {"blood cells": False, "helmets": True}


def test_variants_of_the_feature_loss_are_what_the_texts_say() -> None:
    results = REPOSITORY / "benchmarks" / "results" / "default"
    text, readme = (results / "README.md").read_text(), (REPOSITORY / "README.md").read_text()
    found = [json.loads(file.read_text()) for file in sorted((results / "bccd_features").glob("*.json"))]
    default = three_seeds(results / "bccd_parts", "features")[0]
    for key in ("seed", "data_digest", "initial_digest"):
        assert {one[key] for one in found} == {default[key]}
    ours, plain = 100 * default["map50_95"], halves("blood cells")["none"][0]
    assert f"no teacher has {plain:.1f} and the default's features {ours:.1f})" in text
    rows = set()
    for one in found:
        keys = dict(one["settings"])
        assert (keys.pop("ima_cls"), keys.pop("ima_box")) == (0, 0)
        words = frozenset(f"{key}={value}" for key, value in keys.items())
        rows.add((words, f"{100 * one['map50_95']:.1f}", f"{100 * one['map50']:.1f}"))
    said = re.findall(
        r"\| `(ima_[^`]+)` \| ([\d.]+) \| ([\d.]+) \|", text[text.index("Variants of the feature loss") :]
    )
    assert {(frozenset(words.split()), *figures) for words, *figures in said} == rows
    assert all(abs(100 * one["map50_95"] - ours) < 1 for one in found)
    assert len(found) == 6
    assert "Six variants of their loss ended within a point of it" in " ".join(readme.split())
