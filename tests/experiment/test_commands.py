"""`ablate` and `sweep` as typed: everything but the trainings, whose results are written by a stand-in."""

from __future__ import annotations

import errno
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ima_yolo import cli
from ima_yolo.experiment.identity import code_version
from ima_yolo.experiment.study import Study, load_study
from ima_yolo.files import write_json


class Trained:
    """Stands in for `runner.run`: notes what was open and writes results, a little better for a weight near 1."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.rounds = 0
        self.failing: set[str] = set()

    def __call__(self, study: Study, slots: list, say: Callable, start: Any, resume: bool, given_up: set[str]) -> list:
        failed = []
        self.rounds += 1
        for job in study.jobs():
            if study.is_finished(job) or job.name in given_up:
                continue
            self.ran.append(job.name)
            if job.name in self.failing:
                failed.append(job)
                continue
            weight = job.arm.settings.get("ima_weight", 100)
            score = 0.4 + 0.1 / (1 + abs(weight - 1)) + 0.01 * job.seed
            common = {
                "epochs": 1,
                "seconds": 1.0,
                "device": "cpu",
                "resumed": [],
                "data_digest": "d",
                "initial_digest": "i",
            }
            maps = {"map50_95": score, "map50": score, "map75": score, "last_map50_95": score, "map50_95_of_class": {}}
            row = {"epoch": 1.0, "train/box_loss": 1.0, "metrics/mAP50-95(B)": score}
            more = {
                "settings": job.arm.settings,
                "arm": job.arm.name,
                "seed": job.seed,
                "code": code_version(),
                "curves": [row],
            }
            write_json(study.result_path(job), {**common, **maps, **more})
        return failed


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    made = Trained()
    monkeypatch.setattr("ima_yolo.experiment.runner.run", made)
    monkeypatch.setattr("ima_yolo.experiment.report.page.collect", without_measuring)
    return made


def without_measuring(study: Study, _: Any) -> Any:
    from ima_yolo.experiment.report.measured import Measured

    return Measured(study, study.results(), {}, {})


@pytest.fixture
def words(tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path) -> list[str]:
    models = [f"teacher={tiny_checkpoint('yolo26s-few.yaml', seed=1)}", f"student={tiny_checkpoint()}"]
    return [*models, f"data={tiny_data}", "epochs=1", "imgsz=64", f"project={tmp_path}"]


def test_ablate_as_typed(capsys, trained: Trained, words: list[str], tmp_path: Path) -> None:
    assert cli.main(["ablate", "what=mask", *words, "seeds=0,1"]) == 0
    assert trained.ran[:4] == ["none-seed0", "mask-spatial-seed0", "mask-frequency-seed0", "mask-none-seed0"]
    out = capsys.readouterr().out
    assert "| arm | seeds | mAP50-95 | against none | against mask-spatial |" in out
    assert "Ablation: mask" in (tmp_path / "mask" / "report.html").read_text()
    assert cli.main(["ablate", *words]) == 0, "without what=, the paper's table"
    assert [arm.name for arm in load_study(tmp_path / "parts").arms][1:3] == ["plain", "plus-mask"]
    ran = len(trained.ran)
    assert cli.main(["ablate", "what=ima_mask", *words, "seeds=0,1"]) == 0, "the same by its whole name"
    assert len(trained.ran) == ran


def test_what_is_off_stays_so_when_the_report_s_own_command_is_typed(
    capsys, trained: Trained, words: list[str], tmp_path: Path
) -> None:
    """The word none is nothing to the command line: such a key was lost, and the study went on with the default."""
    typed = ["compare", *words, "arms=none,ima", "seeds=0", "ima_mask=none"]
    assert cli.main(typed) == 0
    study = load_study(tmp_path / "compare")
    assert study.common["ima_mask"] == "none"
    assert "ima_mask=none" in study.command
    assert cli.main([shlex.split(word)[0] for word in study.command[1:]]) == 0
    assert cli.main([word for word in typed if word != "ima_mask=none"]) == 2
    assert "holds another study (ima_mask differs)" in capsys.readouterr().err
    assert trained.ran == ["none-seed0", "ima-seed0"]


def test_keys_that_an_arm_or_none_reads_are_named(
    capsys: pytest.CaptureFixture[str], trained: Trained, words: list[str], caplog: Any
) -> None:
    assert cli.main(["ablate", "what=mask", *words, "seeds=0", "ima_loss=l2", "name=a"]) == 0
    assert "arm mask-spatial: without effect beside its other settings: ima_mask" in caplog.text
    assert "arms mask-spatial and mask-none train alike: they differ in nothing that is read" in caplog.text
    assert cli.main(["ablate", "what=parts", *words, "seeds=0", "ima_mask=none", "name=d"]) == 0
    assert "arms plain and plus-mask train alike" in caplog.text
    caplog.clear()
    assert cli.main(["compare", "arms=none,ima", *words, "seeds=0", "ima_loss=mgd", "name=e"]) == 0
    assert "without effect in every arm: ima_loss" in caplog.text
    caplog.clear()
    assert cli.main(["ablate", "what=default", *words, "seeds=0", "name=f"]) == 0
    assert "alike" not in caplog.text
    assert "without effect" not in caplog.text
    assert cli.main(["compare", "arms=none,builtin", *words, "seeds=0", "ima_weight=2", "name=b"]) == 0
    assert "without effect in every arm: ima_weight" in caplog.text
    assert cli.main(["compare", "arms=none,ima", *words, "seeds=0", "dis=2", "name=c"]) == 0
    assert "without effect in every arm: dis" in caplog.text
    assert "of the training itself" not in caplog.text
    own = "arms={'none': {}, 'long': {'epochs': 2}, 'as-all': {'lr0': 0.02}}"
    assert cli.main(["compare", own, *words, "lr0=0.02", "seeds=0", "name=g"]) == 0
    told = "the arms differ in epochs of the training itself: what differs may not be the teacher's"
    assert told in caplog.text
    assert told in (Path(capsys.readouterr().out.split("report ")[-1].strip()).parent / "report.md").read_text()


def test_a_call_holds_the_folder_while_it_trains(
    capsys, trained: Trained, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []

    def meanwhile(*given: Any) -> list[Any]:
        monkeypatch.setattr("ima_yolo.experiment.runner.run", trained)
        codes.append(cli.main(["compare", "arms=none,cwd", *words, "seeds=0"]))
        return trained(*given)

    monkeypatch.setattr("ima_yolo.experiment.runner.run", meanwhile)
    assert cli.main(["compare", "arms=none,ima", *words, "seeds=0"]) == 0
    assert codes == [2]
    assert "another call is training there" in capsys.readouterr().err


def test_an_arm_that_cannot_be_trained_is_named(capsys, trained: Trained, words: list[str]) -> None:
    arms = "arms={'none': {}, 'x': {'ima_instance': 'box', 'ima_objects': 'gt'}}"
    assert cli.main(["compare", arms, *words, "seeds=0"]) == 2
    assert "ima-yolo: arm x: ima_objects weighs positions" in capsys.readouterr().err


def test_what_is_left_open_shows_in_the_exit_code(
    capsys, trained: Trained, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where other processes train everything: a script must not take that for done."""
    monkeypatch.setattr("ima_yolo.experiment.runner.run", lambda *_: [])
    assert cli.main(["compare", "arms=none,ima", *words, "seeds=0"]) == 1
    assert "2 of 2 trainings are not finished" in capsys.readouterr().out


def test_finished_trainings_that_a_call_does_not_name_are_told_of(
    capsys, trained: Trained, words: list[str], tmp_path: Path
) -> None:
    assert cli.main(["compare", "arms=none,ima,l2", *words, "seeds=0,1,2"]) == 0
    assert "also holds" not in capsys.readouterr().out
    assert cli.main(["compare", "arms=none,ima", *words, "seeds=0"]) == 0
    told = (
        "this folder also holds 7 finished trainings of other arms or seeds "
        "(ima-seed1, ima-seed2, l2-seed0, l2-seed1, l2-seed2 and 2 more), which a call that names them shows"
    )
    assert told in capsys.readouterr().out
    assert f"Mind: {told}." in (tmp_path / "compare" / "report.html").read_text()


def test_a_disk_that_is_full_at_the_report_keeps_what_is_finished(
    capsys, trained: Trained, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ima_yolo.experiment.report.page.write_report", full)
    assert cli.main(["compare", "arms=none,ima", *words, "seeds=0"]) == 2
    error = capsys.readouterr().err
    folder = tmp_path / "compare"
    assert f"{folder}: the disk has no room for the report; what is finished is kept, and `ima-yolo report" in error
    assert len(list((folder / "results").iterdir())) == 2


def test_an_arm_that_cannot_be_trained_is_found_before_anything_is(
    capsys, trained: Trained, words: list[str], tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    """`ima_objects=teacher` reads the head of the teacher, which this one has under other class names; boxes clash."""
    assert cli.main(["ablate", "what=objects", *words, "ima_instance=box"]) == 2
    assert "use ima_objects=none" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert trained.ran == []


def test_a_grid_as_typed_goes_on_with_further_seeds(capsys, trained: Trained, words: list[str], tmp_path: Path) -> None:
    sweep = ["sweep", *words, "space={'ima_weight': [0.1, 1, 10]}"]
    assert cli.main([*sweep, "seeds=0"]) == 0
    assert len(trained.ran) == 4
    assert cli.main([*sweep, "seeds=0,1"]) == 0
    assert len(trained.ran) == 8
    assert "weight-1 is better than none" not in capsys.readouterr().out.split("| arm")[1], "one seed proves nothing"
    report = (tmp_path / "sweep" / "report.md").read_text()
    assert report.index("| weight-1 | 1 |") < report.index("| weight-10 | 10 |"), "best first"
    assert "sweep-ima_weight.svg" in report


def test_a_range_as_typed_is_searched_and_goes_on(capsys, trained: Trained, words: list[str], tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="the extra ima-yolo[sweep] is not installed")
    sweep = ["sweep", *words, "seeds=0", "space={'ima_weight': {'low': 0.1, 'high': 10, 'log': True}}"]
    assert cli.main([*sweep, "trials=3"]) == 0, capsys.readouterr().err
    assert trained.ran == ["none-seed0", "trial000-seed0", "trial001-seed0", "trial002-seed0"]
    told = capsys.readouterr().out
    assert "trial 3 of 3\n" in told
    assert re.search(r"^trial002: ima_weight=\d[.\d]{1,5}$", told, re.MULTILINE)
    before = json.loads((tmp_path / "sweep" / "study.json").read_text())["arms"]
    assert cli.main([*sweep, "trials=5"]) == 0
    assert trained.ran[4:] == ["trial003-seed0", "trial004-seed0"]
    assert json.loads((tmp_path / "sweep" / "study.json").read_text())["arms"][:4] == before
    other = [word.replace("'low': 0.1", "'low': 50").replace("'high': 10", "'high': 60") for word in sweep]
    assert cli.main(other) == 2
    assert "holds a sweep of another space" in capsys.readouterr().err


def test_a_search_fills_its_devices_and_runs_what_fails_once(
    capsys, trained: Trained, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="the extra ima-yolo[sweep] is not installed")
    monkeypatch.setattr("ima_yolo.experiment.setup.check_devices", lambda _: None)
    trained.failing = {"trial000-seed0"}
    sweep = ["sweep", *words, "seeds=0", "devices=0,1,2", "trials=6"]
    assert cli.main([*sweep, "space={'ima_weight': {'low': 0.1, 'high': 10}}"]) == 1, capsys.readouterr().err
    assert sorted(trained.ran) == ["none-seed0", *(f"trial{number:03d}-seed0" for number in range(6))]
    assert trained.rounds == 3, "none alone, and twice as many trials as there are devices"
    assert "1 of 7 trainings are not finished; the same command goes on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["sweep", "space={'split': ['val', 'test']}"], "space: split is the same for all trainings of a sweep"),
        (["sweep", "space={'imgsz': [64, 96]}"], "space: imgsz is the same for all"),
        (["compare", "name=.."], "name=..: expected the name of a folder inside project="),
        (["compare", "name=./"], "name=./: expected the name of a folder inside project="),
        (["compare", "name=/tmp/elsewhere"], "name=/tmp/elsewhere: expected the name of a folder inside project="),
        (["compare", "batch=auto"], "batch=auto"),
        (["compare", "batch=-1"], "batch=-1: each training would choose its own"),
        (["compare", "batch=0.6"], "batch=0.6: each training would choose its own"),
        (["compare", "arms={'none': {}, 'x': {'like': 'none', 'optimizer': 'Foo'}}"], "arm x: optimizer=Foo"),
        (["compare", "arms={'none': {'lr0': 'fast'}, 'ima': {}}"], "arm none: 'lr0=fast'"),
        (["compare", "arms={'none': {}, 'x': {'like': 'builtin', 'dis': -1}}"], "arm x: dis=-1"),
        (["compare", "arms={'none': {'pretrained': 'gone.pt'}, 'ima': {}}"], "arm none: "),
        (["compare", "arms={'none': {'batch': -1}, 'ima': {'batch': -1}}"], "arm none: batch=-1: each training would"),
        (["sweep", "space={'batch': [-1, 4]}"], "batch=-1: each training would"),
        (["sweep", "space={'mask_ratio': [1, 2]}"], "is ima_mask_ratio"),
        (["compare", "trials=3"], "trials=: a key of `ima-yolo sweep`, which this command does not have"),
        (["ablate", "arms=none,ima"], "arms=: a key of `ima-yolo compare`"),
        (["sweep", "cfg=sweep_wieght"], "cfg=sweep_wieght: there is no such recipe (did you mean 'sweep_weight'?)"),
        (["ablate", "what=maskk"], "did you mean 'mask'?"),
        (["ablate", "what=mask_ratio"], "values=0.1,0.5,0.9"),
        (["sweep"], "space= is missing"),
        (["sweep", "space={'ima_weight': [1, -1]}"], "ima_weight=-1"),
        (["sweep", "space={'lr': [1, 2]}"], "'lr' is not a setting"),
        (["sweep", "space={'lr0': [0.1, 'fast']}"], "lr0"),
        (["sweep", "space={'ima_weight': {'low': -1, 'high': 2}}"], "ima_weight=-1"),
        (["sweep", "space={'ima_weight': [0, 1]}", "trials=0"], "trials=0"),
        (["report", "study=gone"], "no study here"),
        (["report", "study=.", "again=1"], "report takes study= and pictures=False alone"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    capsys, given: list[str], message: str, trained: Trained, words: list[str], tmp_path: Path
) -> None:
    assert cli.main([*given, *(words if given[0] != "report" else [])]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert trained.ran == []
