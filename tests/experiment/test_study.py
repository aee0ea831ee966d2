from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ima_yolo import cli
from ima_yolo.errors import IMAError
from ima_yolo.experiment import study as module
from ima_yolo.experiment.arms import NAMED, Arm
from ima_yolo.experiment.runner import run
from ima_yolo.experiment.study import Job, Study, load_study, read_seeds
from ima_yolo.files import write_json

SHARED = {"model": "yolo26n.yaml", "epochs": 1}


def make(folder: Path, **changes: Any) -> Study:
    values = {"teacher": "t.pt", "common": SHARED, "arms": (NAMED["none"], NAMED["ima"]), "seeds": (0, 1)}
    return Study(folder, **{**values, **changes})


def test_trainings_go_seed_by_seed(tmp_path: Path) -> None:
    assert [job.name for job in make(tmp_path).jobs()] == ["none-seed0", "ima-seed0", "none-seed1", "ima-seed1"]


def test_a_study_comes_back_from_its_folder(tmp_path: Path) -> None:
    study = make(tmp_path)
    study.save()
    assert load_study(tmp_path) == study
    with pytest.raises(IMAError, match="no study here"):
        load_study(tmp_path / "elsewhere")


def test_arms_and_seeds_may_be_added(tmp_path: Path) -> None:
    make(tmp_path).save()
    make(tmp_path, arms=(NAMED["none"], NAMED["ima"], NAMED["cwd"]), seeds=(0, 1, 2)).save()
    assert len(list(load_study(tmp_path).jobs())) == 9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "other.pt"}, "holds another study (teacher differs)"),
        ({"common": {**SHARED, "epochs": 2}}, "holds another study (epochs differs)"),
        ({"arms": (NAMED["none"], Arm("ima", "ima", {"ima_weight": 1}))}, "holds an arm 'ima' with other settings"),
    ],
)
def test_what_would_mix_two_studies_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    make(tmp_path).save()
    with pytest.raises(IMAError) as caught:
        make(tmp_path, **changes).save(force=True)
    assert message in str(caught.value)


def test_other_code_is_refused_unless_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path).save()
    monkeypatch.setattr(module, "code_version", lambda: {"ima_yolo": "other"})
    with pytest.raises(IMAError, match="begun with other code"):
        make(tmp_path).save()
    make(tmp_path).save(force=True)


def test_the_code_version_covers_every_file_that_trains() -> None:
    package = Path(module.__file__).parents[1]
    covered = {file for pattern in module.TRAINING_CODE for file in package.glob(pattern)}
    assert {package / "losses" / "ima.py", package / "distill.py", package / "teachers" / "yolo.py"} <= covered
    assert all(list(package.glob(pattern)) for pattern in module.TRAINING_CODE), "a pattern matches nothing"


@pytest.mark.parametrize(("given", "seeds"), [(0, (0,)), ("0,1,2", (0, 1, 2)), ((3, 4), (3, 4)), ([5], (5,))])
def test_seeds_in_every_spelling(given: Any, seeds: tuple[int, ...]) -> None:
    assert read_seeds(given) == seeds


@pytest.mark.parametrize("given", ["", "a", -1, (0, 0), None])
def test_wrong_seeds_are_refused(given: Any) -> None:
    with pytest.raises(IMAError, match="seeds="):
        read_seeds(given)


def test_a_training_that_fails_stops_no_other_and_is_run_again(tmp_path: Path, monkeypatch) -> None:
    """Workers are replaced by processes that write a result at once, or fail."""
    study = make(tmp_path)
    study.save()
    script = (
        "import json, sys, pathlib; folder, arm, seed = sys.argv[1:4]\n"
        "if arm == 'ima' and seed == '0' and not pathlib.Path(folder, 'ok').exists(): sys.exit(3)\n"
        "path = pathlib.Path(folder, 'results', f'{arm}-seed{seed}.json'); path.parent.mkdir(exist_ok=True)\n"
        "path.write_text(json.dumps({'arm': arm}))\n"
    )
    started: list[list[str]] = []
    original = subprocess.Popen

    def popen(words: list[str], **keys: Any) -> Any:
        started.append(words[3:])
        return original([sys.executable, "-c", script, *words[3:]], **keys)

    monkeypatch.setattr("ima_yolo.experiment.runner.subprocess.Popen", popen)
    monkeypatch.setattr("ima_yolo.experiment.runner.POLL", 0.05)
    said: list[str] = []
    failed = run(study, [None, None], said.append)
    assert [job.name for job in failed] == ["ima-seed0"]
    assert len(started) == 4
    assert any(line.startswith("FAILED ima-seed0 with code 3") for line in said)
    (tmp_path / "ok").touch()
    assert run(study, [None], said.append) == []
    assert started[4:] == [[str(tmp_path), "ima", "0"]], "what was finished is not run again"


def test_interruption_ends_the_running_ones_and_keeps_results(tmp_path: Path, monkeypatch) -> None:
    study = make(tmp_path)
    study.save()
    write_json(study.result_path(Job(NAMED["none"], 0)), {"arm": "none"})
    processes: list[Any] = []
    original = subprocess.Popen

    def popen(words: list[str], **keys: Any) -> Any:
        processes.append(original([sys.executable, "-c", "import time; time.sleep(60)"], **keys))
        return processes[-1]

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ima_yolo.experiment.runner.subprocess.Popen", popen)
    monkeypatch.setattr("ima_yolo.experiment.runner.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(study, [None], lambda _: None)
    assert [process.poll() is None for process in processes] == [False]
    assert study.is_finished(Job(NAMED["none"], 0))


def test_compare_as_typed(capfd, tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path) -> None:
    words = [
        "compare",
        f"teacher={tiny_checkpoint('yolo26s.yaml', seed=1)}",
        f"student={tiny_checkpoint()}",
        f"data={tiny_data}",
        *[
            "arms=none,builtin,ima",
            "seeds=0",
            "epochs=1",
            "imgsz=64",
            "batch=4",
            "plots=False",
            "optimizer=AdamW",
            "jobs=2",
        ],
        f"project={tmp_path}",
        "name=study",
    ]
    assert cli.main(words) == 0, capfd.readouterr().err
    shown = capfd.readouterr().out
    results = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "study" / "results").glob("*.json")}
    assert set(results) == {"none-seed0", "builtin-seed0", "ima-seed0"}
    assert len({result["data_digest"] for result in results.values()}) == 1, "every arm sees the same images"
    assert len({result["initial_digest"] for result in results.values()}) == 1, "and starts from the same weights"
    assert "differ" not in shown
    assert "one seed: no interval, no evidence" in shown
    assert "| ima | 1 |" in (tmp_path / "study" / "report.md").read_text()
    assert cli.main(words) == 0
    assert "3 of 3 trainings are finished already" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [("arms=none", "at least two"), ("seeds=x", "seeds=x"), ("jobs=0", "jobs=0"), ("arms=none,best", "no arm 'best'")],
)
def test_a_mistake_in_a_comparison_is_one_line(
    capsys, words: str, message: str, tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path
) -> None:
    base = [f"teacher={tiny_checkpoint()}", f"student={tiny_checkpoint()}", f"data={tiny_data}", f"project={tmp_path}"]
    assert cli.main(["compare", *base, words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert not (tmp_path / "compare").exists()
