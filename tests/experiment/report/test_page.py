"""The report of a study whose results are written by hand: no training, no checkpoints."""

from __future__ import annotations

import base64
import re
import shlex
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from ima_yolo import cli
from ima_yolo.experiment.ablation import TABLE, read_ablation
from ima_yolo.experiment.arms import NAMED, Arm
from ima_yolo.experiment.report import figures
from ima_yolo.experiment.report.measured import collect
from ima_yolo.experiment.report.mistakes import KINDS
from ima_yolo.experiment.report.page import write_report
from ima_yolo.experiment.report.sections import examples
from ima_yolo.experiment.study import Study
from ima_yolo.experiment.tables import plain_keys
from ima_yolo.files import write_json

CODE = {"ima_yolo": "abc", "torch": "2.9"}
CLASSES = ("cell", "plate & <b>")
SCORES = {"none": 0.40, "builtin": 0.41, "ima": 0.43}


def curves(score: float, own: str | None) -> list[dict[str, float]]:
    rows = []
    for epoch in (1, 2, 3, 4):
        row = {"epoch": epoch, "time": 10.0 * epoch, "train/box_loss": 2 / epoch, "val/box_loss": 1.0}
        row["metrics/mAP50-95(B)"] = score * epoch / 4
        rows.append({**row, **({own: 0.5} if own else {})})
    return rows


def result(arm: str, seed: int) -> dict[str, Any]:
    score = SCORES.get(arm, 0.4) + (0.102 if arm == "ima" else 0.1) * seed
    own = {"ima": "train/ima_loss", "builtin": "train/dis_loss"}.get(arm)
    common = {"seconds": 60.0, "device": "cpu", "resumed": [], "data_digest": "d", "initial_digest": "i", "code": CODE}
    common["epochs"] = 4
    maps = {"map50_95": score, "map50": score + 0.2, "map75": score - 0.1, "last_map50_95": score - 0.01}
    settings = NAMED[arm].settings if arm in NAMED else {"ima_weight": arm.removeprefix("weight-")}
    return {
        "arm": arm,
        "seed": seed,
        "settings": settings,
        **maps,
        "map50_95_of_class": dict.fromkeys(CLASSES, score),
        **common,
    } | {"curves": curves(score, own)}


def details(score: float) -> dict[str, Any]:
    precision = {name: list(np.linspace(1, score, 101)) for name in CLASSES}
    mistakes = {**dict.fromkeys(KINDS, 3), "correct": 40, "objects": 50}
    sizes = {"small": score, "medium": score, "large": None}
    counts = {"small": 20, "medium": 30, "large": 0}
    return {"images": 9, "mistakes": mistakes, "objects_of_size": counts, "ap_of_size": sizes, "precision": precision}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made_of = {role: {"name": f"{role}.pt", "digest": "0123"} for role in ("teacher", "student", "data")}
    arms = tuple(NAMED[name] for name in SCORES)
    keys = {"title": "Comparison", "against": ("none", "builtin"), "command": ("ima-yolo", "compare", "seeds=0,1,2")}
    made = Study(tmp_path / "s", {**made_of, "holdout": 0.3}, {"epochs": 4, "imgsz": 96}, {}, arms, (0, 1, 2), **keys)
    made.save()
    for job in made.jobs():
        write_json(made.result_path(job), result(job.arm.name, job.seed))
        write_json(made.analysis_path(job.name), details(SCORES[job.arm.name]))
    write_json(made.analysis_path("teacher"), details(0.6))
    size = {"parameters": 1000, "gflops": 2.0, "map50_95": 0.6, "map50": 0.8, "timing": "cpu, batch 1"}
    rows = {
        name: {"name": name, **size, "milliseconds_per_image": ms}
        for name, ms in (("teacher", 30.0), ("student", 10.0))
    }
    write_json(made.folder / "efficiency.json", rows)
    return made


def test_the_page_stands_alone_and_says_everything(study: Study) -> None:
    said: list[str] = []
    page, text = write_report(study, said.append)
    html, markdown = page.read_text(), text.read_text()
    for title in ("Outcome", "Curves", "By class", "Kinds of error", "Size and speed", "Settings", "Run it again"):
        assert f"{title}" in html
        assert f"## {title}" in markdown
    assert not re.search(r'(src|href)="(?!data:|#)', html), "nothing is fetched from elsewhere"
    assert "<script" not in html
    assert "ima is better than none (+3.20 mAP50-95, 95% interval +2.70 to +3.70, 3 pairs)." in html
    assert "held-out part of train" in html
    assert "Student student.pt, teacher teacher.pt, data -, 4 epochs at 96 px." in html
    assert "what stands after ± is half of that of a mean" in html
    assert "plate &amp; &lt;b&gt;" in html, "names are text, not markup"
    assert "plate &amp; &lt;b&gt;" in markdown
    assert "3.00x" in html, "the student is three times as fast"
    assert "No pictures: they need the checkpoints" in html
    assert "ima-yolo compare seeds=0,1,2" in html
    assert "distill_model=teacher.pt" in html
    assert "| none | 6.0 | 6.0 |" in markdown, "3 mistakes among 50 objects are 6 of 100"
    assert said == []


def test_each_figure_is_in_the_page_and_beside_the_markdown(study: Study) -> None:
    page, text = write_report(study, lambda _: None)
    links = re.findall(r"!\[[^\]]*\]\((figures/[^)]+)\)", text.read_text())
    names = {Path(link).stem for link in links}
    assert {"against-none", "against-builtin", "metrics-mAP50-95", "train-box_loss", "train-ima_loss"} <= names
    assert {"train-dis_loss", "precision-0", "precision-1", "mistakes", "sizes"} <= names
    assert "val-box_loss" not in names
    inside = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page.read_text())
    assert len(inside) == len(links)
    for content in inside:
        assert ElementTree.fromstring(base64.b64decode(content)).tag.endswith("svg")
    assert all((study.folder / link).is_file() for link in links)


def test_the_same_study_gives_the_same_page(study: Study) -> None:
    first = write_report(study, lambda _: None)[0].read_bytes()
    assert write_report(study, lambda _: None)[0].read_bytes() == first


def test_arms_whose_checkpoints_were_never_looked_at_are_named(study: Study) -> None:
    told = "Not looked at, since their checkpoints are not on this machine"
    assert told not in write_report(study, lambda _: None)[0].read_text()
    none = [job for job in study.jobs() if job.arm.name == "none"]
    study.analysis_path(none[0].name).unlink()
    assert f"{told}: arm none (1 of 3 seeds).</p>" in write_report(study, lambda _: None)[0].read_text()
    for job in none[1:]:
        study.analysis_path(job.name).unlink()
    assert f"{told}: arm none.</p>" in write_report(study, lambda _: None)[0].read_text()


def test_a_study_that_has_only_begun_has_a_report(study: Study) -> None:
    for job in list(study.jobs())[2:]:
        study.result_path(job).unlink()
        study.analysis_path(job.name).unlink()
    study.analysis_path("teacher").unlink()
    (study.folder / "efficiency.json").unlink()
    html = write_report(study, lambda _: None)[0].read_text()
    assert "7 of 9 trainings are not finished" in html
    assert "builtin against none: no evidence either way, since one seed gives no interval" in html
    assert "Size and speed" not in html


def test_results_without_details_have_a_report(study: Study) -> None:
    """As results have that were committed without the folder `analysis/`."""
    for file in (study.folder / "analysis").iterdir():
        file.unlink()
    html = write_report(study, lambda _: None)[0].read_text()
    assert "Outcome" in html
    assert "Kinds of error" not in html


def test_a_training_that_was_stopped_and_is_cut_short_is_named(study: Study) -> None:
    job = next(iter(study.jobs()))
    write_json(study.result_path(job), {**result("none", 0), "resumed": [2], "data_digest": "", "initial_digest": ""})
    assert "Mind: stopped and resumed, so not equal bit for bit" in write_report(study, lambda _: None)[0].read_text()


def test_a_sweep_gets_its_plot_and_a_word_of_caution(study: Study) -> None:
    arms = (NAMED["none"], *(Arm(f"weight-{w}", "ima", {"ima_weight": w}) for w in (0.1, 1, 10, "auto")))
    swept = Study(**{**vars(study), "folder": study.folder.parent / "w", "arms": arms, "against": ("none",)})
    for job in swept.jobs():
        write_json(swept.result_path(job), result(job.arm.name, job.seed))
    html = write_report(swept, lambda _: None)[0].read_text()
    assert "confirm it with new seeds" in html
    assert (swept.folder / "figures" / "sweep-ima_weight.svg").is_file()


def test_trials_show_every_key_of_their_space_to_four_digits(study: Study) -> None:
    """Also one of which each drew the same value."""
    drawn = (0.1234567890123456, 9.87654321)
    arms = tuple(Arm(f"trial{n:03d}", "ima", {"ima_weight": w, "ima_mask_ratio": 0.3}) for n, w in enumerate(drawn))
    swept = Study(**{**vars(study), "folder": study.folder.parent / "w", "arms": (NAMED["none"], *arms)})
    for job in swept.jobs():
        found = result("none", job.seed)
        write_json(swept.result_path(job), {**found, "arm": job.arm.name, "settings": job.arm.settings})
    text = write_report(swept, lambda _: None)[1].read_text()
    assert "| arm | ima_weight | ima_mask_ratio | mAP50-95 |" in text
    assert "| trial000 | 0.1235 | 0.3 |" in text
    assert "| trial001 | 9.877 | 0.3 |" in text
    assert "none, trial000, trial001 ended with the same figures to the last digit" in text


def test_pictures_that_are_missing_are_told_apart(study: Study) -> None:
    """None can be made, or no image is one."""
    measured = collect(study, lambda _: None)
    win = figures.Figure("wins", "jpeg", b"", "caption")
    assert [one.text for one in (examples(measured, [win]), examples(measured, []))] == [
        ["On no image is ima worse than none."],
        ["No pictures: they need the checkpoints of both students and the images, which are not on this machine."],
    ]


def test_which_keys_count_as_swept() -> None:
    def arms(*settings: dict[str, Any]) -> list[Arm]:
        return [Arm(str(index), "ima", one) for index, one in enumerate(settings)]

    assert figures.swept_keys(arms({}, {"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 3, "b": 1})) == ["a"]
    assert figures.swept_keys(arms({"a": 1}, {"a": 2})) == ["a"], "a sweep of two values is one"
    assert figures.swept_keys(arms({"a": 1}, {"a": 2}, {"b": 1})) == []


def test_the_arms_that_details_are_shown_of(study: Study) -> None:
    measured = collect(study, lambda _: None)
    assert measured.pictured == ["teacher", "none", "ima"]
    assert [round(one["ap_of_size"]["small"], 2) for one in measured.of_arm("ima")] == [0.43] * 3


def test_an_ablation_s_details_are_of_the_default_though_an_arm_less_a_part_is_better(study: Study) -> None:
    arms, against = read_ablation("default", "mask,features")
    ablated = Study(**{**vars(study), "folder": study.folder.parent / "a", "arms": arms, "against": against})
    for job in ablated.jobs():
        write_json(ablated.result_path(job), {**result(job.arm.name, job.seed), "map50_95": 0.01 * len(job.arm.name)})
    assert collect(ablated, lambda _: None).pictured == ["none", "ima"]
    table = Study(**{**vars(ablated), "arms": (NAMED["none"], *TABLE), "against": ("none", "plain", "plus-mask")})
    for job in table.jobs():
        write_json(table.result_path(job), {**result(job.arm.name, job.seed), "map50_95": 0.01 * len(job.arm.name)})
    assert collect(table, lambda _: None).pictured == ["none", "plus-standardization"], "the best of several"


def test_curves_of_many_arms_show_the_plain_one_and_the_best(study: Study) -> None:
    arms = (NAMED["none"], *(Arm(f"weight-{w}", "ima", {"ima_weight": w}) for w in range(20)))
    many = Study(**{**vars(study), "folder": study.folder.parent / "m", "arms": arms, "seeds": (0,)})
    for job in many.jobs():
        weight = job.arm.settings.get("ima_weight", -1)
        write_json(many.result_path(job), {**result(job.arm.name, 0), "map50_95": 0.01 * (weight + 1)})
    measured = collect(many, lambda _: None)
    assert measured.leading(4) == ["none", "weight-17", "weight-18", "weight-19"]
    assert measured.leading(21) == measured.arms
    shown = measured.leading(len(figures.COLOURS))
    colour = figures.colours(dict.fromkeys([*shown, *measured.arms]))
    assert len({colour[arm] for arm in shown}) == len(shown) == 8, "arms of one figure have a colour each"
    assert colour.keys() == {"teacher", *measured.arms}


def test_what_was_in_force_is_told_with_its_defaults(study: Study) -> None:
    for job in study.jobs():
        if job.arm.name == "ima":
            force = {"ima_balance": 0.5, "ima_weight": 0.1 * job.seed}
            write_json(study.result_path(job), {**result("ima", job.seed), "in_force": force})
    markdown = write_report(study, lambda _: None)[1].read_text()
    assert "| ima_balance | 0.5 |" in markdown
    assert "| ima_weight | 0.0 or 0.1 or 0.2 |" in markdown, "all that an arm's seeds had"
    assert "Mind: the seeds of ima were trained with different settings in force" in markdown
    assert "setting of IMA-YOLO, in force" in markdown


def test_what_the_commands_say_of_a_part_that_is_off_can_be_typed(study: Study) -> None:
    """The command line makes nothing of the word none, and such a key was left out of what runs the study again."""
    common = {**study.common, "ima_mask": "none", "freeze": [10], "time": None}
    markdown = write_report(Study(**{**vars(study), "common": common}), lambda _: None)[1].read_text()
    assert "| ima_mask | none |" in markdown
    (line,) = (line for line in markdown.splitlines() if line.startswith("ima-yolo train") and "ima_loss=ima" in line)
    _, options = cli.parse(shlex.split(line)[1:])
    typed = {key: options[key] for key in ("ima_mask", "freeze", "time")}
    assert typed == {"ima_mask": None, "freeze": [10], "time": None}, "as the command line reads the word none"


def test_arms_that_differ_in_the_training_itself_are_named(study: Study) -> None:
    """A teacher with another learning rate beside a student without one may owe everything to that rate."""
    job = next(job for job in study.jobs() if job.arm.name == "ima")
    for seed in study.seeds:
        tuned = {**result("ima", seed), "settings": {"lr0": 0.1, "ima_loss": "ima"}}
        write_json(study.result_path(type(job)(job.arm, seed)), tuned)
    markdown = write_report(study, lambda _: None)[1].read_text()
    told = "Mind: the arms differ in lr0 of the training itself: what differs may not be the teacher's"
    assert told in markdown
    assert plain_keys({"dis": 3, "ima_weight": 1, "lr0": 1}) == {"lr0": 1}
    for seed in study.seeds:
        default = {**result("ima", seed), "settings": {"lr0": 0.01, "ima_loss": "ima"}}
        write_json(study.result_path(type(job)(job.arm, seed)), default)
    assert "Mind: the arms differ" not in write_report(study, lambda _: None)[1].read_text(), "a default spelt out"


def test_one_training_of_a_study_with_a_held_out_part_is_on_that_part(study: Study) -> None:
    markdown = write_report(study, lambda _: None)[1].read_text()
    assert "data=s/data/data.yaml" in markdown
    whole = Study(**{**vars(study), "made_of": {**study.made_of, "holdout": None}})
    assert "data=data.pt" in write_report(whole, lambda _: None)[1].read_text()


def test_arms_known_by_name_are_no_sweep_and_many_intervals_are_named(study: Study) -> None:
    assert "one in twenty" not in write_report(study, lambda _: None)[0].read_text()
    names = ("none", "builtin", "l2", "mgd", "cwd", "pkd", "ima")
    many = Study(**{**vars(study), "folder": study.folder.parent / "n", "arms": tuple(NAMED[name] for name in names)})
    for job in many.jobs():
        write_json(many.result_path(job), result(job.arm.name, job.seed))
    html = write_report(many, lambda _: None)[0].read_text()
    assert "Mind: of 11 intervals at 95%, one in twenty misses the truth by chance." in html
    assert "confirm it with new seeds" not in html


@pytest.mark.parametrize(
    "content",
    [
        {},
        [1],
        {**details(0.5), "precision": {"cell": [0.5] * 50}},
        {**details(0.5), "ap_of_size": ""},
        {"mistakes": {}, "precision": {"cell": [1, None]}},
        "x",
        {"teacher": {"size": 1}},
    ],
)
def test_damage_beside_the_results_costs_no_more_than_what_it_damaged(study: Study, content: Any) -> None:
    write_json(study.analysis_path("ima-seed0"), content)
    write_json(study.folder / "efficiency.json", content)
    said: list[str] = []
    assert "ima is better than none" in write_report(study, said.append)[0].read_text()
    assert "ima-seed0.json: is damaged; remove it, and it is made again" in said[0]
    assert len(said) == 2 - (content == {}), "an empty table of sizes is one"


@pytest.mark.parametrize(
    "damage",
    [
        {"curves": [{"epoch": None}]},
        {"epochs": [1]},
        {"data_digest": [1]},
        {"code": ["torch"]},
        {"code": {"torch": {}}},
        {"in_force": "x"},
        {"map50_95_of_class": {"cell": "x"}},
    ],
)
def test_a_damaged_result_is_one_line(study: Study, capsys, damage: dict[str, Any]) -> None:
    job = next(iter(study.jobs()))
    write_json(study.result_path(job), {**result("none", 0), **damage})
    assert cli.main(["report", f"study={study.folder}"]) == 2
    assert "none-seed0.json: is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("score", [7, float("nan")])
def test_scores_that_are_none_are_one_line(study: Study, capsys, score: float) -> None:
    """One that a training really ended with would come again, so removing it is no advice."""
    write_json(study.result_path(next(iter(study.jobs()))), {**result("none", 0), "map50_95": score})
    assert cli.main(["report", f"study={study.folder}"]) == 2
    assert "none-seed0.json: its scores are not from 0 to 1; see the training's log" in capsys.readouterr().err


def test_a_teacher_that_is_elsewhere_is_waited_for(study: Study, tmp_path: Path) -> None:
    """What is measured without it would be kept so, and its row and the speed-up be gone for good."""
    weights = study.weights(next(iter(study.jobs())))
    weights.parent.mkdir(parents=True)
    weights.touch()
    (study.folder / "efficiency.json").unlink()
    said: list[str] = []
    write_report(Study(**{**vars(study), "places": {"teacher": "gone.pt", "model": "s", "data": "d"}}), said.append)
    assert "the report goes without size and speed: teacher=gone.pt: not here" in said
    assert not (study.folder / "efficiency.json").exists()


def test_size_and_speed_of_a_student_whose_teacher_cannot_be_measured(study: Study) -> None:
    row = {
        "name": "student",
        "parameters": 1000,
        "gflops": 2.0,
        "milliseconds_per_image": 5.0,
        "timing": "cpu, batch 1",
    }
    write_json(study.folder / "efficiency.json", {"student": row})
    assert "| student | 1,000 | 2.00 | 5.0 |  |" in write_report(study, lambda _: None)[1].read_text()


def test_report_as_typed(study: Study, capsys) -> None:
    assert cli.main(["report", f"study={study.folder}"]) == 0
    assert f"report {study.folder / 'report.html'}" in capsys.readouterr().out
    assert cli.main(["report"]) == 2
    assert "study= is missing" in capsys.readouterr().err
    assert cli.main(["report", f"study={study.folder.parent}"]) == 2
    assert "no study here" in capsys.readouterr().err
    for job in study.jobs():
        study.result_path(job).unlink()
    assert cli.main(["report", f"study={study.folder}"]) == 2
    assert "no training is finished yet" in capsys.readouterr().err
