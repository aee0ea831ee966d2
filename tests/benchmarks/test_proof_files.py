"""The studies of the proof: each table and sentence about them says what their files say."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from committed import REPOSITORY, spelled, three_seeds, unlike

PROOF = REPOSITORY / "benchmarks" / "results" / "proof"


NAMES = {
    "bccd-yolo26n-yolo26s-scratch": "blood cells, YOLO26n <- YOLO26s",
    "bccd-yolo26n-yolo26m-scratch": "blood cells, YOLO26n <- YOLO26m",
    "bccd-yolo11n-yolo26s-scratch": "blood cells, YOLO11n <- YOLO26s",
    "bccd-yolo11n-yolo11s-scratch": "blood cells, YOLO11n <- YOLO11s",
    "bccd-yolo11n-yolo11m-scratch": "blood cells, YOLO11n <- YOLO11m",
    "bccd-yolo26n-yolo26s-converged": "blood cells, YOLO26n <- YOLO26s, converged",
    "helmet-yolo26n-yolo26s-scratch": "helmets, YOLO26n <- YOLO26s",
    "helmet-yolo11n-yolo26s-scratch": "helmets, YOLO11n <- YOLO26s",
    "scenes-yolo26n-yolo26s-scratch": "drawn scenes, YOLO26n <- YOLO26s",
}


EARLIER = "ratio-0.1"


EARLIER_PAIRS = ((EARLIER, "none"), ("ima", EARLIER))


COUNTS = {3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


MEAN = f"mean of {COUNTS[len(NAMES)]}"


def proved(study: str, score: str = "map50_95") -> dict[str, dict[int, float]]:
    """mAP50-95 in points by arm and seed of a study that was committed, whose arms had the same conditions.

    `ratio-0.1` is the arm `ima` as the default was before, with features that weigh a tenth, where it was tried.
    """
    arms = [arm for arm in ("none", "builtin", "ima", EARLIER) if arm != EARLIER or was_tried_earlier(study)]
    files = {arm: sorted((PROOF / study).glob(f"{arm}-seed*.json")) for arm in arms}
    found = {arm: [json.loads(file.read_text()) for file in of_arm] for arm, of_arm in files.items()}
    every = [{**one, "arm": arm} for arm, of_arm in found.items() for one in of_arm]
    assert unlike(every) == [], (
        "our own code is another one for the earlier default, and nothing to those that it does not train"
    )
    assert {tuple(one["settings"].items()) for one in every} == {(), (("ima_loss", "ima"),)}, "the default"
    assert {one["in_force"]["ima_weight_ratio"] for one in found["ima"]} == {0.5}
    points = {arm: {one["seed"]: 100 * one[score] for one in of_arm} for arm, of_arm in found.items()}
    assert len({tuple(of_arm) for of_arm in points.values()}) == 1, "the same seeds"
    return points


def was_tried_earlier(study: str) -> bool:
    return any((PROOF / study).glob(f"{EARLIER}-seed*.json"))


def test_every_study_of_the_proof_is_named() -> None:
    assert {folder.name for folder in PROOF.iterdir() if folder.is_dir()} == NAMES.keys()


@pytest.mark.parametrize(("study", "name"), NAMES.items())
def test_the_proof_is_what_its_files_say(study: str, name: str) -> None:
    from ima_yolo.experiment.statistics import paired

    points = proved(study)
    seeds = len(points["ima"])
    assert seeds >= 3
    means = {arm: f"{sum(of_arm.values()) / seeds:.1f}" for arm, of_arm in points.items()}
    earlier = means.pop(EARLIER, None)
    differences = [spelled(paired(points["ima"], points[other])) for other in ("none", "builtin")]
    cells = " | ".join([str(seeds), *means.values(), *differences])
    readme, text = (REPOSITORY / "README.md").read_text(), (PROOF / "README.md").read_text()
    assert f"| {name} | {cells} |" in readme
    assert f"| {study} | {cells} |" in text
    for arm, of_arm in points.items():
        assert f"| `{arm}` | {' | '.join(f'{value:.1f}' for value in of_arm.values())} |" in text
    report = (PROOF / study / "report.md").read_text()
    assert all(f"| {arm} | {seeds} | " in report for arm in means)
    if earlier:
        without, larger = (spelled(paired(points[one], points[other])) for one, other in EARLIER_PAIRS)
        assert f"| {name} | {earlier} | {without} | {means['ima']} | {larger} |" in text


def gains_over(other: str, score: str = "map50_95") -> dict[str, Any]:
    """The default against another arm, by study."""
    from ima_yolo.experiment.statistics import paired

    every = {study: proved(study, score) for study in NAMES}
    return {study: paired(points["ima"], points[other]) for study, points in every.items()}


def means_over(other: str) -> dict[str, Any]:
    """Means over the studies of the default against another arm, by the names of their rows in the texts."""
    from ima_yolo.experiment.statistics import averaged, over_comparisons

    gains = gains_over(other)
    blood = [gain for study, gain in gains.items() if study.startswith("bccd")]
    rows = {MEAN: list(gains.values()), f"mean of {COUNTS[len(blood)]} of blood cells": blood}
    kinds = {"seeds": averaged, "studies": over_comparisons}
    return {f"{name}, interval over {kind}": mean(of) for name, of in rows.items() for kind, mean in kinds.items()}


def test_the_proof_as_a_whole_meets_its_aims_and_is_what_the_readme_opens_with() -> None:
    """At least 1.5 points against no teacher and 0.8 against Ultralytics' own, and never 0.3 worse than either."""
    readme, text = (REPOSITORY / "README.md").read_text(), (PROOF / "README.md").read_text()
    rows: dict[str, list[str]] = {}
    opens = []
    for other, aim in (("none", 1.5), ("builtin", 0.8)):
        assert min(gain.mean for gain in gains_over(other).values()) >= -0.3
        means = means_over(other)
        for name, mean in means.items():
            assert mean.mean >= aim, name
            assert mean.low > 0, "better, with evidence"
            rows.setdefault(name, []).append(spelled(mean))
        widest = means[f"{MEAN}, interval over studies"]
        opens.append((f"{widest.mean:+.1f}", f"{widest.low:+.1f} to {widest.high:+.1f}"))
    for name, cells in rows.items():
        for file in (readme, text):
            assert f"| {name} | | | | | {' | '.join(cells)} |" in file
    (plain, interval), (builtin, of_builtin) = opens
    assert (
        f"{plain} mAP50-95 against no teacher (95% interval over studies {interval}), {builtin} against Ultralytics' "
        f"`distill_model=` ({of_builtin}): blood cells, helmets and drawn scenes, 24 to 30 epochs "
        f"at 160 to 224 px, {MEAN} studies, "
    ) in readme


def test_where_the_default_does_not_win_is_said() -> None:
    from ima_yolo.experiment.statistics import averaged

    readme, text = (" ".join((place / "README.md").read_text().split()) for place in (REPOSITORY, PROOF))
    gains, builtin = gains_over("none"), gains_over("builtin")
    every = [value for found in (gains, builtin) for gain in found.values() for value in gain.differences]
    (only,) = [value for value in every if value < 0]
    assert (
        f"Every seed but one of the {len(every) // 2} (blood cells, YOLO11n <- YOLO26s, seed 0, {only:+.1f} against no"
        in readme
    )
    assert f"All seeds but one of YOLO11n <- YOLO26s ({only:+.1f} against no teacher)" in text
    clear, over_builtin = ({study for study, gain in of.items() if gain.low > 0} for of in (gains, builtin))
    assert NAMES.keys() - over_builtin == {"helmet-yolo11n-yolo26s-scratch"}
    assert "For YOLO11n of the helmets the gain over `distill_model=`, which helps there as well, is not" in readme
    assert "for YOLO11n the default's gain over it is not significant" in text
    of_cells = ("bccd-yolo26n-yolo26s-scratch", "bccd-yolo11n-yolo11m-scratch")
    assert clear == {*of_cells, *(study for study in NAMES if not study.startswith("bccd"))}
    of_whom = "YOLO26n <- YOLO26m, YOLO11n <- YOLO26s, YOLO11n <- YOLO11s and the converged student"
    assert f"Of the blood cells, for {of_whom} the gain over no teacher is not significant." in readme
    assert f"For {of_whom} the gain over no teacher is not significant." in text
    count = COUNTS[len(gains) - len(clear)]
    assert f"studies, in {count} of which the gain over no teacher is not significant by itself |" in readme
    last = [spelled(averaged([*gains_over(other, "last_map50_95").values()])) for other in ("none", "builtin")]
    for file in (readme, text):
        assert f"By last epochs in place of best ones the means are {' and '.join(last)}" in file


def test_what_the_proof_says_of_the_earlier_default_is_what_its_files_say() -> None:
    from ima_yolo.experiment.statistics import averaged, paired

    studies = {study: proved(study) for study in NAMES if was_tried_earlier(study)}
    said = " ".join((REPOSITORY / "README.md").read_text().split())

    def mean(arm: str, other: str) -> str:
        return spelled(averaged([gain for points in studies.values() if (gain := paired(points[arm], points[other]))]))

    assert f"not gated, had {mean(EARLIER, 'none')} and {mean(EARLIER, 'builtin')}, and evidence" in said
    text = (PROOF / "README.md").read_text()
    (without, larger), helmets = (mean(*pair) for pair in EARLIER_PAIRS), studies["helmet-yolo26n-yolo26s-scratch"]
    assert f"| mean of {COUNTS[len(studies)]} | | {without} | | {larger} |" in text
    assert all(paired(points[EARLIER], points["none"]).low > 0 for points in studies.values()), (
        "as the text says of each"
    )
    files = sorted((PROOF.parent / "default" / "bccd_balance").glob("val-off-*.json"))
    first = {one["seed"]: 100 * one["map50_95"] for one in (json.loads(file.read_text()) for file in files)}
    plain = studies["bccd-yolo26n-yolo26s-scratch"]["none"]
    *others, last = (f"{value:.1f}" for value in first.values())
    gain = spelled(paired(first, {seed: plain[seed] for seed in first}))
    said_of = f"had {', '.join(others)} and {last}: {gain} against no teacher."
    assert said_of in " ".join(text.split())
    of_helmets = spelled(paired(helmets["ima"], helmets[EARLIER]))
    of_both = f"is {larger} better than the earlier one with features at a tenth that were not gated: {of_helmets}"
    assert f"{of_both} on the helmets" in said


def test_the_versions_of_our_code_that_trained_the_default_are_told() -> None:
    """And that in those of the first version no teacher rested for an epoch."""
    found: dict[str, list[dict[str, Any]]] = {}
    for study in NAMES:
        for file in (PROOF / study).glob("ima-seed*.json"):
            one = json.loads(file.read_text())
            found.setdefault(one["code"]["ima_yolo"], []).append({"study": study, **one})
    text = " ".join((PROOF / "README.md").read_text().split())
    assert found.keys() == set(re.findall(r"`([0-9a-f]{16})`", text))
    first = found["fda525da631f2da7"]
    assert {one["study"] for one in first} == {"bccd-yolo26n-yolo26s-scratch", "helmet-yolo26n-yolo26s-scratch"}
    assert min(epoch["train/ima_loss"] for one in first for epoch in one["curves"]) > 0


def by_class(study: str, form: str = "{:.1f} for {:.1f}") -> dict[str, str]:
    """Class -> mAP50-95 in points of the default, and for what of no teacher, as the texts write it."""
    points: dict[str, list[float]] = {}
    for arm in ("ima", "none"):
        found = [
            json.loads(file.read_text())["map50_95_of_class"] for file in (PROOF / study).glob(f"{arm}-seed*.json")
        ]
        for kind in found[0]:
            points.setdefault(kind, []).append(100 * sum(one[kind] for one in found) / len(found))
    return {kind: form.format(ours, plain) for kind, (ours, plain) in points.items()}


def test_what_is_said_of_classes_is_what_the_files_say() -> None:
    small, other = by_class("bccd-yolo26n-yolo26s-scratch"), by_class("bccd-yolo11n-yolo26s-scratch")
    names = {"RBC": "red cells", "WBC": "white cells"}
    converged, helmets = by_class("bccd-yolo26n-yolo26s-converged"), by_class("helmet-yolo26n-yolo26s-scratch")
    others = by_class("helmet-yolo11n-yolo26s-scratch")
    said = " ".join((PROOF / "README.md").read_text().split())
    assert f"platelets have {small['Platelets']} (YOLO11n <- YOLO26s {other['Platelets']}), " in said
    assert ", ".join(f"{names[kind]} {small[kind]} ({other[kind]})" for kind in ("WBC", "RBC")) in said
    after = ", ".join(f"{names[kind]} {converged[kind]}" for kind in ("WBC", "RBC"))
    assert f"Converged, platelets have {converged['Platelets']}, {after}." in said
    of_helmets = f"have {helmets['helmet']}, heads {helmets['head']}"
    assert f"Helmets {of_helmets}; YOLO11n {others['helmet']}, {others['head']}." in said
    readme = (REPOSITORY / "README.md").read_text()
    assert f"helmets {of_helmets} (YOLO11n {others['helmet']}, {others['head']})." in " ".join(readme.split())
    studies = ("bccd-yolo26n-yolo26s-scratch", "bccd-yolo11n-yolo26s-scratch", "bccd-yolo26n-yolo26s-converged")
    columns = [by_class(study, "{:.1f} ({:.1f})") for study in studies]
    for kind, name in {"Platelets": "platelets", **names}.items():
        assert f"| {name} | {' | '.join(column[kind] for column in columns)} |" in readme


def of_teacher(study: str) -> str:
    """mAP50-95 in points of a study's teacher, as its report has it."""
    found = re.search(r"^\| teacher \| ([\d.]+) \|", (PROOF / study / "report.md").read_text(), re.MULTILINE)
    assert found is not None
    return f"{float(found[1]):.1f}"


def test_what_is_said_of_the_helmets_is_what_the_files_say() -> None:
    from ima_yolo.experiment.statistics import paired

    study, other = (f"helmet-{student}-yolo26s-scratch" for student in ("yolo26n", "yolo11n"))
    gains: dict[str, Any] = {
        name: paired(points["builtin"], points["none"]) for name in NAMES if (points := proved(name))
    }
    here = [gains.pop(study), gains.pop(other)]
    gains.pop("scenes-yolo26n-yolo26s-scratch")
    assert all(gain.low > 0 for gain in here)
    assert all(gain.mean < 0 for gain in gains.values()), "on the blood cells it does not help"
    said = " ".join((PROOF / "README.md").read_text().split())
    first, second = (f"{gain.mean:+.1f}, {gain.low:+.1f} to {gain.high:+.1f}" for gain in here)
    assert f"helps here ({first}; YOLO11n {second}), as it does not on the blood" in said
    assert of_teacher(other) == of_teacher(study)
    assert f"it has {of_teacher(study)} on the 350" in said
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"(8 epochs of all, {of_teacher(study)} on the 350 validation images)" in readme


def test_what_is_said_of_the_drawn_scenes_is_what_the_files_say() -> None:
    from ima_yolo.experiment.statistics import paired

    study = "scenes-yolo26n-yolo26s-scratch"
    points = proved(study)
    said, readme = (" ".join((place / "README.md").read_text().split()) for place in (PROOF, REPOSITORY))
    assert f"for 60 epochs of the same 300, and has {of_teacher(study)} on the other 300." in said
    builtin = spelled(paired(points["builtin"], points["none"]))
    kinds = ", ".join(f"{kind} {value}" for kind, value in by_class(study).items())
    assert f"against no teacher: {builtin}. By class, the default for no teacher: {kinds}." in said
    plain, own = (spelled(paired(points["ima"], points[other])) for other in ("none", "builtin"))
    gains = f"{plain} against no teacher and {own} against `distill_model=`"
    assert f"On the drawn scenes, by whose images nothing was chosen, the gains are {gains}." in readme


def test_the_teachers_that_the_command_trains_are_as_good_as_the_text_says() -> None:
    studies = ("bccd-yolo11n-yolo11s-scratch", "bccd-yolo26n-yolo26m-scratch", "bccd-yolo11n-yolo11m-scratch")
    first, second, third = map(of_teacher, studies)
    said = " ".join((PROOF / "README.md").read_text().split())
    assert f"for 60 epochs of the same 205, and have {first}, {second} and {third}." in said


def test_what_is_said_of_the_converged_student_is_what_its_files_say() -> None:
    folder = PROOF / "bccd-yolo26n-yolo26s-converged"
    plain, ours = (three_seeds(folder, arm) for arm in ("none", "ima"))
    assert len({one["initial_digest"] for one in (*plain, *ours)}) == 1, "one checkpoint"
    first, sixth = ([f"{100 * one['curves'][epoch]['metrics/mAP50-95(B)']:.1f}" for one in plain] for epoch in (0, 5))
    text = " ".join((PROOF / "README.md").read_text().split())
    assert f"no teacher to {first[0]}, {first[1]} and {first[2]}" in text
    assert f"regained ({sixth[0]}, {sixth[1]} and {sixth[2]})" in text
