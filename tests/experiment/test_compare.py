"""`ima-yolo compare` as typed, with real trainings of a tiny drawn set."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ima_yolo import cli
from ima_yolo.experiment.arms import NAMED
from ima_yolo.experiment.runner import start_process
from ima_yolo.experiment.study import Job, load_study

SMALL = ["imgsz=64", "batch=4", "plots=False", "optimizer=AdamW", "workers=0"]


@pytest.fixture
def words(tiny_checkpoint: Callable[..., Path], tiny_data: Path, tmp_path: Path) -> list[str]:
    models = [
        f"teacher={tiny_checkpoint('yolo26s-few.yaml', seed=1)}",
        f"student={tiny_checkpoint()}",
        f"data={tiny_data}",
    ]
    return ["compare", *models, *SMALL, f"project={tmp_path}", "name=study"]


def results_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text()) for path in (folder / "results").glob("*.json")}


def test_compare_as_typed_and_continued_elsewhere(capfd, words: list[str], tmp_path: Path) -> None:
    short = [*words, "epochs=1", "seeds=0", "holdout=0.5"]
    assert cli.main([*short, "arms=none,builtin,ima", "jobs=2"]) == 0, capfd.readouterr().err
    shown = capfd.readouterr().out
    results = results_of(tmp_path / "study")
    assert set(results) == {"none-seed0", "builtin-seed0", "ima-seed0"}
    assert len({result["data_digest"] for result in results.values()}) == 1, "every arm sees the same images"
    assert len({result["initial_digest"] for result in results.values()}) == 1, "and starts from the same weights"
    assert "differ" not in shown
    assert "one seed gives no interval, and so no evidence" in shown
    assert "one seed: no interval, no evidence" in shown
    report = (tmp_path / "study" / "report.md").read_text()
    assert "| ima | 1 |" in report
    assert "](figures/features.jpg)" in report, "checkpoints and images are here"
    assert re.search(r"\| teacher \| \d+,\d+", report), "size and speed"
    assert {path.stem for path in (tmp_path / "study" / "analysis").iterdir()} == {*results, "teacher"}
    assert len(list((tmp_path / "study" / "data" / "images" / "val").iterdir())) == 4, "half of train"
    assert cli.main([*short, "arms=none,builtin,ima"]) == 0, capfd.readouterr().err
    assert "3 of 3 trainings are finished already" in capfd.readouterr().out

    copied = ("study.json", "results")  # as a repository would keep it
    for name in copied:
        source, target = tmp_path / "study" / name, tmp_path / "there" / "study" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    moved = [word for word in short if not word.startswith("project=")] + [f"project={tmp_path / 'there'}"]
    assert cli.main([*moved, "arms=none,builtin,ima,cwd"]) == 0, capfd.readouterr().err
    assert "3 of 4 trainings are finished already" in capfd.readouterr().out
    assert len({result["data_digest"] for result in results_of(tmp_path / "there" / "study").values()}) == 1
    assert [path.name for path in (tmp_path / "there" / "study" / "runs").iterdir() if path.is_dir()] == ["cwd-seed0"]


@pytest.mark.parametrize("arm", ["builtin", "ima"])
def test_a_killed_training_begins_again_or_goes_on_as_told(arm: str, capfd, words: list[str], tmp_path: Path) -> None:
    folder, job = tmp_path / "study", Job(NAMED[arm], 0)
    long = [*words, "epochs=6", "seeds=0", f"arms={'none,ima' if arm != 'builtin' else 'none,builtin'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ima_yolo.experiment.runner.run", stop_at_once)
        assert cli.main(long) == 130
    study = load_study(folder)
    worker = start_process(study, job, None, False)
    rows = folder / "runs" / job.name / "results.csv"
    last = folder / "runs" / job.name / "weights" / "last.pt"
    while worker.poll() is None and not (last.exists() and rows.read_text().count("\n") >= 2):
        time.sleep(0.05)
    worker.kill()  # says nothing where the process has ended
    worker.wait()
    if worker.returncode != -signal.SIGKILL:
        pytest.skip("the training was faster than the kill")
    assert results_of(folder) == {}
    assert start_process(study, job, None, True).wait() == 0, (folder / "logs" / f"{job.name}.log").read_text()[-2000:]
    result = results_of(folder)[job.name]
    (stop,) = result["resumed"]
    assert 1 <= stop < 6
    assert [row["epoch"] for row in result["curves"]] == [1, 2, 3, 4, 5, 6]
    assert result["data_digest"] == ""
    capfd.readouterr()


def stop_at_once(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("arms=none", "at least two"),
        ("seeds=x", "seeds=x"),
        ("seeds=0,99999999999", "seeds=(0, 99999999999): expected distinct whole numbers from 0 to 4294900000"),
        ("jobs=0", "jobs=0"),
        ("arms=none,best", "no arm 'best'"),
        ("devices=7", "device"),
        ("holdout=1.5", "holdout=1.5: expected a share"),
        ("holdout=True", "holdout=True: expected a share"),
        ("seed=3", "seed=: differs between the trainings of a study"),
        ("resume=True", "resume=: differs between"),
        ("ray_gpus=1", "ray_gpus=: needs ray="),
        ("force=maybe", "force=maybe: expected True or False"),
        ("lr=1", "'lr' is not a setting"),
        ("arms=", "at least two"),
        ("arms={'none': {}, 'x': {'classes': [1]}}", "arm x: classes= has to be the same for all arms"),
        ("arms={'none': {}, 'x': {'conf': 0.5}}", "arm x: conf= has to be the same"),
        ("single_cls=True", "single_cls=: a study evaluates all classes of val as Ultralytics does"),
        *(
            (f"{word}", "=: a study evaluates")
            for word in ("split=test", "classes=1", "conf=0.5", "max_det=5", "augment=True")
        ),
        ("device=0,1", "a training of a study takes one; devices= deals out several"),
    ],
)
def test_a_mistake_in_a_comparison_is_one_line(capsys, word: str, message: str, words: list[str], tmp_path) -> None:
    assert cli.main([*words, word]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "\n" not in error.strip()
    assert not (tmp_path / "study").exists()


def with_models(words: list[str], **models: object) -> list[str]:
    return [f"{key}={models[key]}" if (key := word.partition("=")[0]) in models else word for word in words]


def test_teachers_of_other_kinds_are_compared(
    capfd, words: list[str], tmp_path: Path, tiny_checkpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is to be fetched")

    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    two = f"{tiny_checkpoint('yolo26s-few.yaml', seed=1)},{tiny_checkpoint('yolo26s-few.yaml', seed=2)}"
    assert cli.main([*with_models(words, teacher=two), "epochs=1"]) == 2
    assert "arm builtin: Ultralytics' distill_model= takes one checkpoint" in capfd.readouterr().err
    short = ["epochs=1", "arms=none,features", "single_cls=False", "split=val", "ima_teacher_shares=1,3"]
    assert cli.main([*with_models(words, teacher=two), *short]) == 0, capfd.readouterr().err
    assert "the report goes without" not in capfd.readouterr().out
    assert (tmp_path / "study" / "figures" / "features.jpg").is_file(), "of the students"
    assert load_study(tmp_path / "study").made_of["teacher"]["name"].count(".pt,") == 1
    assert "| student | " in (tmp_path / "study" / "report.md").read_text(), "its size, without the teachers'"
    other = ["name=other", *short[:-1], "ima_teacher_weights=none"]
    assert cli.main([*with_models(words, teacher="torchvision:fasterrcnn_mobilenet_v3_large_fpn")[:-1], *other]) == 0, (
        capfd.readouterr().err
    )
    assert set(results_of(tmp_path / "other")) == {"none-seed0", "features-seed0"}


def test_a_student_of_another_task_is_refused_before_anything_is_trained(
    capsys, words: list[str], tmp_path: Path
) -> None:
    assert cli.main(with_models(words, student="yolo26n-seg.yaml")) == 2
    assert "a model for segment, but detect is to be trained" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_a_file_of_the_users_is_not_imported_by_the_trainings(
    capfd, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's debugger, which torch imports, takes a `code.py` in the current folder for its module of that name."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "code.py").write_text("import pathlib; pathlib.Path(__file__).with_name('ran').touch()")
    monkeypatch.chdir(tmp_path / "here")
    assert cli.main([*words, "epochs=1", "arms=none,ima"]) == 0, capfd.readouterr().err
    assert not (tmp_path / "here" / "ran").exists()
    study = load_study(tmp_path / "study")
    for job in study.jobs():
        assert results_of(tmp_path / "study")[job.name]["shared"] == study.shared_digest(job.arm)
    force = results_of(tmp_path / "study")["ima-seed0"]["in_force"]
    assert (force["ima_balance"], force["ima_loss"]) == (0.5, "ima")
    chosen = {"ima_cls": 1.0, "ima_box": 1.0, "ima_instance": "image", "ima_generator": "light"}
    chosen |= {"ima_teacher_runtime": "torch"}  # a short training
    assert {key: force[key] for key in chosen} == chosen, "what was left to us"
    assert not {"teacher", "ima_trust"} & force.keys()
