"""How the default was chosen: each table and sentence says what the committed trainings say."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from committed import REPOSITORY, spelled, three_seeds, unlike

from ima_yolo.config import validate

DEFAULT = REPOSITORY / "benchmarks" / "results" / "default"


def test_the_study_with_a_teacher_that_saw_no_held_out_image_is_what_the_text_says() -> None:
    from ima_yolo.experiment.statistics import paired

    text = (DEFAULT / "README.md").read_text()
    points: dict[str, dict[int, float]] = {}
    for arm in ("none", "ima"):
        found = three_seeds(DEFAULT / "bccd_unseen", arm)
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
            "blood cells, 62 held-out images, 30 epochs",
            ("bccd_unseen/none", "bccd_unseen/ima", "bccd_balance/half", "bccd_ratio/half"),
        ),
        (
            "helmets, 400 held-out images, 24 epochs",
            (*(f"helmet_holdout/{arm}" for arm in ("none", "ima", "half")), "helmet_ratio/half"),
        ),
    ],
)
def test_what_the_default_was_chosen_by_is_what_the_readme_says(name: str, folders: tuple[str, ...]) -> None:
    from ima_yolo.experiment.statistics import paired

    arms = [three_seeds(DEFAULT, arm) for arm in folders]
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
    text = (DEFAULT / "README.md").read_text()
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
    found = {arm: three_seeds(DEFAULT, place) for arm, place in HALVES[name].items()}
    assert len({tuple(one["data_digest"] for one in of_arm) for of_arm in found.values()}) == 1, "the same images"
    assert len({tuple(one["initial_digest"] for one in of_arm) for of_arm in found.values()}) == 1, "the same students"
    return {arm: {one["seed"]: 100 * one["map50_95"] for one in of_arm} for arm, of_arm in found.items()}


@pytest.mark.parametrize("name", HALVES)
def test_what_each_half_of_the_default_brings_is_what_the_texts_say(name: str) -> None:
    from ima_yolo.experiment.statistics import paired

    points = halves(name)
    text = (DEFAULT / "README.md").read_text()
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


def test_what_the_halves_bring_on_both_data_sets_is_what_the_readme_says() -> None:
    from ima_yolo.experiment.statistics import averaged, paired

    every = [halves(name) for name in HALVES]
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    text = " ".join((DEFAULT / "README.md").read_text().split())
    for half, other, file, form in (
        ("both", "heads", text, "and {} ({} to {}) over both"),
        ("larger", "heads", text, "alone it is {} ({} to {}) over both"),
        ("larger", "both", text, "a ratio of 0.1 {} ({} to {}): no evidence over both"),
        ("features", "none", readme, "bring {} ({} to {}), which is no evidence yet"),
        ("features", "none", text, "they bring {} ({} to {}) over both"),
        ("heads", "none", text, "most of it (alone {} ({} to {}) over both)"),
    ):
        mean = averaged([gain for points in every if (gain := paired(points[half], points[other]))])
        assert mean is not None
        assert mean.low is not None
        assert (mean.low < 0 < mean.high) == (half != "heads"), "evidence is of the heads alone"
        assert form.format(*(f"{value:+.1f}" for value in (mean.mean, mean.low, mean.high))) in file


def test_a_larger_weight_of_the_features_brings_what_the_text_says() -> None:
    from ima_yolo.experiment.statistics import paired

    text = " ".join((DEFAULT / "README.md").read_text().split())
    evidence = {}
    for name, places in HALVES.items():
        assert [one["settings"] for one in three_seeds(DEFAULT, places["larger"])] == [{"ima_weight_ratio": 0.5}] * 3
        points = halves(name)
        against = {other: paired(points["larger"], points[other]) for other in ("none", "heads", "both")}
        cells = [f"{value:.1f}" for value in points["larger"].values()] + [spelled(gain) for gain in against.values()]
        assert f"| {name} | {' | '.join(cells)} |" in text
        evidence[name] = (gain := against["heads"]) is not None and gain.low is not None and gain.low > 0
    assert evidence == {"blood cells": False, "helmets": True}


def test_variants_of_the_feature_loss_are_what_the_texts_say() -> None:
    text, readme = (DEFAULT / "README.md").read_text(), (REPOSITORY / "README.md").read_text()
    found = [json.loads(file.read_text()) for file in sorted((DEFAULT / "bccd_features").glob("*.json"))]
    default = three_seeds(DEFAULT / "bccd_parts", "features")[0]
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


PARTS = ("features", "standardization", "deflation", "mask", "generator")
PARTS_OF_HEADS = {"balance": 5, "cls": 1, "box": 1}
"""Left out on the blood cells only, and of how many seeds."""
ABLATED = {
    "blood cells": {
        "none": ("bccd_unseen/none", "bccd_ablation/none"),
        **{arm: (f"bccd_ablation/{arm}",) for arm in ("ima", *(f"no-{part}" for part in (*PARTS, *PARTS_OF_HEADS)))},
    },
    "helmets": {
        "none": ("helmet_holdout/none", "helmet_ablation/none"),
        "ima": ("helmet_ratio/half", "helmet_ablation/ima"),
        "no-features": ("helmet_parts/heads", "helmet_ablation/no-features"),
        **{f"no-{part}": (f"helmet_ablation/no-{part}",) for part in PARTS[1:]},
    },
}
"""Where the trainings without a teacher, of the default and of the default less a part are."""
ADDED = (3, 4)
"""Seeds that were trained when three had told nothing of single parts, and that no choice was made by."""


def ablated(name: str, seeds: Collection[int] = range(5), score: str = "map50_95") -> dict[str, dict[int, float]]:
    """mAP50-95 in points of no teacher, the default and the default less each part, by seed, in the same conditions."""
    from ima_yolo.experiment.ablation import read_ablation

    wanted = {arm.name: arm.settings for arm in read_ablation("default")[0]}
    points: dict[str, dict[int, float]] = {}
    every: list[dict[str, Any]] = []
    for arm, places in ABLATED[name].items():
        files = [file for place in places for file in sorted(DEFAULT.glob(f"{place}-seed*.json"))]
        found = {file: json.loads(file.read_text()) for file in files}
        every += [{**one, "arm": arm, "in_force": read_of(one)} for one in found.values()]
        # but for the default by its earlier settings, bit for bit: see below
        other = [file for file, one in found.items() if one["settings"] != wanted[arm]]
        assert all(file.parent.name == "helmet_ratio" for file in other), other
        points[arm] = {one["seed"]: 100 * one[score] for one in found.values()}
        assert {*points[arm]} == {*range(PARTS_OF_HEADS.get(arm.removeprefix("no-"), 5))}, arm
    assert unlike(every) == []
    return {arm: {seed: value for seed, value in of_arm.items() if seed in seeds} for arm, of_arm in points.items()}


def read_of(result: dict[str, Any]) -> dict[str, Any]:
    """Settings in force that the training read: without features, the default of their ratio changed for nobody."""
    without = ("ima_weight_ratio",) if result["settings"].get("ima_weight") == 0 else ()
    return {key: value for key, value in result.get("in_force", {}).items() if key not in without}


def less(points: dict[str, dict[int, float]], part: str) -> Any:
    """The default against the default less a part, over the seeds that both were trained with."""
    from ima_yolo.experiment.statistics import paired

    return paired(points["ima"], points[f"no-{part}"])


def verdict_on_parts() -> str:
    """What the texts say of the parts of Instance Mask Alignment."""
    every = [ablated(name) for name in ABLATED]
    shown, at_last = shown_parts(every), shown_parts([ablated(name, score="last_map50_95") for name in ABLATED])
    gains = {part: [less(points, part) for points in every] for part in PARTS if part != "features"}
    ends = [value > 0 for found in gains.values() for gain in found for value in gain.differences]
    rest = [part for part in gains if part not in shown]
    told = f"Less one of its parts, {sum(ends)} of {len(ends)} students end below the default of their seed; over both"
    evidence = f"{listing(shown)} (by last epochs for {listing(at_last)})"
    return f"{told} data sets that is evidence for {evidence}, and may be chance for {listing(rest)}."


def shown_parts(every: Sequence[dict[str, dict[int, float]]]) -> list[str]:
    """Parts that the default is better with, with evidence over these data sets."""
    from ima_yolo.experiment.statistics import averaged

    found = {part: averaged([less(points, part) for points in every]) for part in PARTS if part != "features"}
    return [part for part, gain in found.items() if gain is not None and gain.low is not None and gain.low > 0]


def listing(parts: Sequence[str]) -> str:
    """Parts as a sentence has them."""
    *first, last = [f"the {part}" if part in {"mask", "generator"} else part for part in parts] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def test_the_larger_weight_trained_as_the_default_does_now() -> None:
    """Bit for bit on the helmets, whose teacher the gate never holds back."""
    before, now = (
        json.loads((DEFAULT / f"{arm}-seed0.json").read_text()) for arm in ("helmet_ratio/half", "helmet_ablation/ima")
    )
    assert now["settings"] == {"ima_loss": "ima"}
    rows = [
        [{key: value for key, value in row.items() if key != "time"} for row in one["curves"]] for one in (before, now)
    ]
    assert rows[0] == rows[1]
    assert before["map50_95"] == now["map50_95"]


@pytest.mark.parametrize("name", ABLATED)
def test_what_each_part_brings_is_what_the_texts_say(name: str) -> None:
    from ima_yolo.experiment.statistics import paired

    points = ablated(name)
    text = (DEFAULT / "README.md").read_text()
    text = text[text.index(f"What each part brings, {name}") :]
    cells = {
        arm: " | ".join(f"{value:.1f}" for value in of_arm.values()) + " |" * (5 - len(of_arm))
        for arm, of_arm in points.items()
    }
    assert f"| no teacher | {cells['none']} | {spelled(paired(points['ima'], points['none']))} |" in text
    assert f"| the default | {cells['ima']} | |" in text
    for part in (arm.removeprefix("no-") for arm in points.keys() - {"none", "ima"}):
        gain = less(points, part)
        assert f"| less {part} | {cells[f'no-{part}']} | {spelled(gain) if gain.low else 'one seed'} |" in text


def test_what_each_part_brings_on_both_data_sets_is_what_the_texts_say() -> None:
    from ima_yolo.experiment.statistics import averaged, paired

    every = {name: ablated(name) for name in ABLATED}
    last = [ablated(name, score="last_map50_95") for name in ABLATED]
    text, readme = ((folder / "README.md").read_text() for folder in (DEFAULT, REPOSITORY))
    for file in (text, readme):
        assert verdict_on_parts() in " ".join(file.split())
    for part in PARTS:
        gains = [less(points, part) for points in every.values()]
        cells = " | ".join(map(spelled, [*gains, averaged(gains)]))
        at_last = averaged([less(points, part) for points in last])
        assert f"| {part} | {cells} | {spelled(at_last)} |" in readme
        assert f"| {part} | {spelled(averaged(gains))} | {spelled(at_last)} |" in text
    said = " ".join(readme.split())
    assert "for the blood cells (five seeds each;" in said
    heads = averaged([paired(points["no-features"], points["none"]) for points in every.values()])
    assert f"without features they bring {spelled(heads)} over both data sets" in said
    features = averaged([less(points, "features") for points in every.values()])
    assert f"which are Instance Mask Alignment, add {spelled(features)} to that" in said
    alone = less(every["blood cells"], "features")
    assert alone.low < 0 < alone.high, "nothing that can be told from chance on the blood cells"
    before = halves("blood cells")
    assert f"with the teacher before it was {spelled(paired(before['larger'], before['heads']))})" in said
    added = less(ablated("helmets", ADDED), "features").differences
    for file in (said, " ".join(text.split())):
        assert "seeds that chose nothing have {:+.1f} and {:+.1f} there".format(*added) in file


def test_what_each_part_of_the_heads_brings_is_what_the_readme_says() -> None:
    from ima_yolo.experiment.statistics import paired

    points = ablated("blood cells")
    said = " ".join((REPOSITORY / "README.md").read_text().split())
    gain = less(points, "balance")
    assert gain.low > 0
    assert f"`ima_balance` brings {spelled(gain)} on the blood cells" in said
    with_it, less_it = (
        {one["seed"]: 100 * one["map50_95"] for one in three_seeds(DEFAULT / "helmet_holdout", arm)}
        for arm in ("half", "ima")
    )
    told = spelled(paired(with_it, less_it)).replace(" (", ", ").rstrip(")")
    for file in (said, (DEFAULT / "README.md").read_text()):
        assert f"({told}" in file
    of_one = [f"{points[arm][0]:.1f}" for arm in ("no-cls", "no-box", "ima")]
    assert "with one seed ({} less class scores, {} less boxes, {} with both)".format(*of_one) in said


def test_the_teacher_of_the_parts_is_as_good_as_the_texts_say() -> None:
    report = (DEFAULT / "bccd_ablation" / "report.md").read_text()
    row = re.search(r"\| teacher \| ([\d.]+) \|", report)
    assert row is not None
    text = " ".join((DEFAULT / "README.md").read_text().split())
    assert f"and a better one: it has {float(row[1]):.1f} on them" in text
