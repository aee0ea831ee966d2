from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ima_yolo.errors import IMAError
from ima_yolo.experiment.arms import NAMED
from ima_yolo.experiment.identity import code_version
from ima_yolo.experiment.study import Study, load_study
from ima_yolo.experiment.sweep import Range, edges, grid, is_grid, propose_and_run, read_space, tried_arms
from ima_yolo.files import write_json

SPACE = {"ima_weight": [0.1, 1], "ima_mask": ["spatial", "none"]}
LINE = {"ima_weight": {"low": 0.1, "high": 10, "log": True}}


def test_a_grid_has_an_arm_for_each_combination() -> None:
    space = read_space({"ima_weight": [0.1, 1], "ima_mask": ["spatial", None]})
    assert is_grid(space, None)
    arms = grid(space)
    assert [arm.name for arm in arms] == [
        *("none", "mask-spatial_weight-0.1", "mask-none_weight-0.1"),
        *("mask-spatial_weight-1", "mask-none_weight-1"),
    ]
    assert arms[2].settings == {"ima_weight": 0.1, "ima_mask": "none"}


def test_arms_of_a_grid_have_one_name_whatever_the_order_of_its_keys() -> None:
    """Else the same sweep, typed in another order, would train everything again."""
    first, second = ({key: SPACE[key] for key in order} for order in (sorted(SPACE), sorted(SPACE, reverse=True)))
    assert {arm.name for arm in grid(read_space(first))} == {arm.name for arm in grid(read_space(second))}


def test_a_range_or_fewer_trials_than_combinations_needs_proposals() -> None:
    assert not is_grid(read_space(LINE), None)
    assert not is_grid(read_space({"ima_weight": [1, 2, 3]}), 2)
    assert is_grid(read_space({"ima_weight": [1, 2, 3]}), 3)
    with pytest.raises(IMAError, match="1024 combinations; give trials="):
        is_grid({str(key): [0, 1] for key in range(10)}, None)


def test_edges_cover_every_end_and_value() -> None:
    space = {**read_space(LINE), "ima_mask": ["spatial", "frequency", "none"]}
    rows = [arm.settings for arm in edges(space)]
    assert {row["ima_weight"] for row in rows} == {0.1, 10}
    assert {row["ima_mask"] for row in rows} == {"spatial", "frequency", "none"}
    assert all(set(row) == set(space) for row in rows)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "space= is missing"),
        ("ima_weight", "space=ima_weight: no keys with values: give keys with values, in a recipe (cfg=) or as space="),
        ({"ima_weight": [1, 1.0]}, "at least two different values"),
        ({"ima_weight": ["1", 1]}, "at least two different values"),
        ({"ima_weight": {"low": 1, "high": 2, "log": "false"}}, "and log: true or false"),
        ({"ima_wieght": [1, 2]}, "did you mean 'ima_weight'?"),
        ({"teacher": ["a", "b"]}, "teacher is the same for all trainings"),
        ({"student": ["a", "b"]}, "student is the same for all trainings"),
        ({"seed": [0, 1]}, "seed is the same for all trainings"),
        ({"save_dir": ["a", "b"]}, "save_dir is the same for all trainings"),
        ({"cfg": ["a.yaml", "b.yaml"]}, "cfg is the same for all trainings"),
        ({"ima_weight": [1]}, "at least two different values"),
        ({"ima_weight": 3}, "at least two different values"),
        ({"ima_weight": {"low": 1}}, "expected the numbers low: and high:"),
        ({"ima_weight": {"low": 2, "high": 1}}, "expected low < high"),
        ({"ima_weight": {"low": 0, "high": 1, "log": True}}, "low > 0 with log"),
        ({"ima_weight": {"low": 0, "high": 1, "step": 1}}, "expected the numbers low: and high:"),
    ],
)
def test_a_wrong_space_is_one_line(given: Any, message: str) -> None:
    with pytest.raises(IMAError) as caught:
        read_space(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


class Trainings:
    """Writes the result that a training of a known optimum at weight 1 would have, without training."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def __call__(self, study: Study) -> None:
        study.save()
        for job in study.jobs():
            if not study.is_finished(job):
                self.ran.append(job.name)
                weight = job.arm.settings.get("ima_weight", 100)
                score = 1 / (1 + abs(weight - 1)) + 0.01 * job.seed
                made = {"arm": job.arm.name, "settings": job.arm.settings, "code": code_version()}
                write_json(study.result_path(job), {**made, "seed": job.seed, "map50_95": score})


def test_no_space_trusts_files() -> None:
    space = read_space({"ima_trust": [True, False], "ima_weight": [1, 2]})
    for arms in (grid, edges):
        with pytest.raises(IMAError, match=r"ima_trust= is for a training of its own"):
            arms(space)


def test_proposals_are_kept_and_a_stopped_sweep_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra ima-yolo[sweep] is not installed")
    space, work = read_space(LINE), Trainings()
    places = {"teacher": "t", "model": "s", "data": "d"}
    study = Study(tmp_path, {}, {}, places, (NAMED["none"],), (0, 1))
    first = propose_and_run(study, space, trials=6, at_once=2, work=work)
    assert len(first.arms) == 7
    assert len(work.ran) == 14
    tried = tried_arms(load_study(tmp_path).arms, space)
    assert [arm.name for arm in tried] == [f"trial{number:03d}" for number in range(6)]
    assert len({arm.settings["ima_weight"] for arm in tried}) == 6
    assert all(0.1 <= arm.settings["ima_weight"] <= 10 for arm in tried)

    again = Study(**{**vars(study), "arms": (NAMED["none"], *tried)})
    done = propose_and_run(again, space, trials=25, at_once=1, work=work)
    assert len(work.ran) == 2 * 26, "nothing is run twice"
    weights = [arm.settings["ima_weight"] for arm in done.arms[1:]]
    assert min(abs(weight - 1) for weight in weights) < 0.2, "the search finds the optimum"
    with pytest.raises(IMAError, match="holds a sweep of another space"):
        tried_arms(done.arms, {"ima_weight": Range(20, 30)})


def test_without_optuna_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(IMAError, match=r"pip install '\.\[sweep\]'"):
        propose_and_run(Study(tmp_path, {}, {}, {}, (NAMED["none"],), (0,)), read_space(LINE), 3, 1, lambda _: None)
