from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from ima_yolo.errors import IMAError
from ima_yolo.experiment import runner
from ima_yolo.experiment.arms import NAMED
from ima_yolo.experiment.runner import log_path, run
from ima_yolo.experiment.study import Job, Study
from ima_yolo.files import write_json

PLACES = {"teacher": "t.pt", "model": "yolo26n.yaml", "data": "d.yaml"}
WRITES = """
import json, pathlib, sys
folder, arm, seed = sys.argv[1:4]
if arm == "ima" and seed == "0" and not pathlib.Path(folder, "ok").exists():
    print("RuntimeError: out of memory\\n")
    sys.exit(3)
path = pathlib.Path(folder, "results", f"{arm}-seed{seed}.json")
path.parent.mkdir(exist_ok=True)
path.write_text(json.dumps({"arm": arm}))
"""
SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(runner, "POLL", 0.05)
    made = Study(tmp_path, {}, {"epochs": 1}, PLACES, (NAMED["none"], NAMED["ima"]), (0, 1))
    made.save()
    return made


class Workers:
    """Stands in for `start_process`: runs a script in place of a training, and notes what was asked for."""

    def __init__(self, script: str) -> None:
        self.script, self.asked, self.processes = script, [], []

    def __call__(self, study: Study, job: Job, device: str | None, resume: bool) -> Any:
        self.asked.append((job.name, device, resume))
        log_path(study, job).parent.mkdir(exist_ok=True)
        words = [sys.executable, "-c", self.script, str(study.folder), job.arm.name, str(job.seed)]
        with log_path(study, job).open("wb") as log:
            self.processes.append(subprocess.Popen(words, stdout=log))
        return self.processes[-1]


def test_a_training_that_fails_stops_no_other_and_is_run_again(study: Study) -> None:
    workers, said = Workers(WRITES), []
    failed = run(study, ["0", "1"], said.append, workers)
    assert [job.name for job in failed] == ["ima-seed0"]
    assert len(workers.asked) == 4
    assert {device for _, device, _ in workers.asked} == {"0", "1"}
    assert any(line.startswith("FAILED ima-seed0 with code 3: RuntimeError: out of memory; see") for line in said)
    (study.folder / "ok").touch()
    assert run(study, [None], said.append, workers, resume=True) == []
    assert workers.asked[4:] == [("ima-seed0", None, True)], "what was finished is not run again"


def test_a_training_that_is_killed_is_said_to_be(study: Study) -> None:
    """The last line of its log is a row of a table."""
    said: list[str] = []
    kills = "import os, signal; print('all 4 12 0 0', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    failed = run(study, [None] * 4, said.append, Workers(kills))
    assert len(failed) == 4
    assert any("FAILED ima-seed0 killed by SIGKILL (signal 9; often: out of memory); see" in line for line in said)


def test_the_log_of_a_training_that_another_process_is_at_stays(study: Study) -> None:
    job = Job(NAMED["none"], 0)
    log_path(study, job).parent.mkdir()
    log_path(study, job).write_text("epoch 1\n")
    (study.folder / "places.json").unlink()
    assert runner.start_process(study, job, None, False).wait() == 2
    assert log_path(study, job).read_text().startswith("epoch 1\nnone-seed0 begins\nima-yolo: ")


def test_interruption_ends_the_running_ones_and_keeps_results(study: Study, monkeypatch) -> None:
    write_json(study.result_path(Job(NAMED["none"], 0)), {"arm": "none"})
    workers = Workers(SLEEPS)

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(study, [None], lambda _: None, workers)
    assert [process.poll() is None for process in workers.processes] == [False]
    assert study.is_finished(Job(NAMED["none"], 0))


def test_a_request_to_terminate_ends_the_running_ones(study: Study) -> None:
    workers = Workers(SLEEPS)
    handler = signal.getsignal(signal.SIGTERM)

    def start(*words: Any) -> Any:
        process = workers(*words)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    with pytest.raises(KeyboardInterrupt):
        run(study, [None], lambda _: None, start)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert all(process.poll() is not None for process in workers.processes)


def test_a_full_disk_starts_nothing_more_and_keeps_what_is_finished(study: Study, monkeypatch) -> None:
    workers, free = Workers(WRITES.replace("sys.exit(3)", "pass")), iter([10**12, 10**12, *[10**6] * 50])
    monkeypatch.setattr(runner, "_is_full", lambda _: next(free) < runner.LEAST_FREE)
    with pytest.raises(IMAError, match=r"less than 500 MB are free on the disk, 3 trainings were not started"):
        run(study, [None], lambda _: None, workers)
    assert [job.name for job in study.jobs() if study.is_finished(job)] == ["none-seed0"]


def test_what_another_process_trains_is_left_to_it(study: Study) -> None:
    """Two real workers would meet here; the second finds the lock and ends before it loads anything."""
    job = Job(NAMED["none"], 0)
    lock = study.folder / "locks" / f"{job.name}.lock"
    lock.parent.mkdir()
    with FileLock(lock):
        assert runner.start_process(study, job, None, False).wait() == runner.BUSY
    said: list[str] = []
    assert run(study, [None] * 4, said.append, Workers(f"import sys; sys.exit({runner.BUSY})")) == []
    assert sum("another process trains it" in line for line in said) == 4


def test_a_study_from_elsewhere_without_its_places_is_one_line(study: Study) -> None:
    (study.folder / "places.json").unlink()
    job = Job(NAMED["none"], 0)
    assert runner.start_process(study, job, None, False).wait() == 2
    assert "came from another machine; give teacher=, student= and data=" in log_path(study, job).read_text()


@pytest.mark.parametrize("arm", ["none", "builtin", "ima"])
def test_what_can_be_gone_on_with(arm: str, tmp_path: Path) -> None:
    from ima_yolo.experiment.worker import _stops

    job, of = Job(NAMED[arm], 0), {"train_args": {"epochs": 6}}
    last = tmp_path / "weights" / "last.pt"
    last.parent.mkdir()
    assert _stops(tmp_path, job) is None, "never began"
    torch.save({"epoch": 4, **of}, last)
    assert _stops(tmp_path, job) == [5]
    write_json(tmp_path / "resumed.json", [2])
    assert _stops(tmp_path, job) == [2, 5], "stopped twice"
    torch.save({"epoch": 5, **of}, last)
    validated = [2, 6] if arm == "ima" else None
    assert _stops(tmp_path, job) == validated, "stopped before its validation: Ultralytics resumes no such training"
    last.write_bytes(last.read_bytes()[:100])
    assert _stops(tmp_path, job) is None, "cut short while it was written"
    torch.save({"epoch": -1, **of}, last)
    assert _stops(tmp_path, job) is None, "trained to its end"


def test_a_checkpoint_that_is_cut_short_leaves_the_one_before(tmp_path: Path, monkeypatch) -> None:
    from ima_yolo.experiment.worker import PlainTrainer

    trainer = PlainTrainer.__new__(PlainTrainer)
    trainer.wdir, trainer.last, trainer.best = tmp_path, tmp_path / "last.pt", tmp_path / "best.pt"
    places, fault = (trainer.wdir, trainer.last, trainer.best), None

    def save(self: PlainTrainer) -> bool:
        self.last.write_bytes(b"half")
        if fault is not None:
            raise fault
        self.best.write_bytes(b"half")
        (self.wdir / "epoch1.pt").write_bytes(b"half")
        return True

    monkeypatch.setattr("ultralytics.engine.trainer.BaseTrainer.save_model", save)
    assert trainer.save_model()
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt", "best.pt", "epoch1.pt"}
    trainer.last.write_bytes(b"whole")
    fault = OSError("no space left on device")
    with pytest.raises(OSError, match="no space"):
        trainer.save_model()
    assert trainer.last.read_bytes() == b"whole"
    assert (trainer.wdir, trainer.last, trainer.best) == places


def test_what_the_study_does_not_hold_is_one_line(study: Study) -> None:
    for job in (Job(NAMED["cwd"], 0), Job(NAMED["none"], 9)):
        assert runner.start_process(study, job, None, False).wait() == 2
        assert f"holds no {job.name}" in log_path(study, job).read_text()


def test_trainings_find_what_the_study_found(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the names of folders, and whatever else is among the places to import from."""
    place = tmp_path / "a:b c"
    place.mkdir()
    (place / "filelock.py").write_text("raise SystemExit('the own one')")
    monkeypatch.setattr(sys, "path", [str(place), "", Path("no text"), *sys.path])
    job = Job(NAMED["none"], 0)
    assert runner.start_process(study, job, None, False).wait() == 1
    assert "the own one" in log_path(study, job).read_text()


def test_what_was_given_up_is_not_run(study: Study) -> None:
    workers, said = Workers(WRITES), []
    assert run(study, [None], said.append, workers, given_up={"none-seed0", "ima-seed0"}) == []
    assert [name for name, _, _ in workers.asked] == ["none-seed1", "ima-seed1"]
    assert said[0] == "4 trainings", "none of them is finished"


def test_a_training_that_is_made_again_leaves_no_details_of_the_old_one(study: Study, monkeypatch) -> None:
    from ima_yolo.experiment import worker

    job = Job(NAMED["none"], 0)
    write_json(study.analysis_path(job.name), {"images": 9})

    def trainer(overrides: dict[str, Any]) -> None:
        raise KeyError

    monkeypatch.setattr(worker, "PlainTrainer", trainer)
    with pytest.raises(KeyError):
        worker.run_job(study, job)
    assert not study.analysis_path(job.name).exists()


def test_without_resume_a_training_begins_again_in_an_empty_folder(study: Study, monkeypatch) -> None:
    from ima_yolo.experiment import worker

    job = Job(NAMED["none"], 0)
    last = study.run_folder(job) / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    torch.save({"epoch": 4, "train_args": {"epochs": 6}}, last)
    begun: list[tuple[dict[str, Any], bool]] = []

    class Stop(Exception):
        pass

    def trainer(overrides: dict[str, Any]) -> None:
        begun.append((overrides, last.exists()))
        raise Stop

    monkeypatch.setattr(worker, "PlainTrainer", trainer)
    for resume in (True, False):
        with pytest.raises(Stop):
            worker.run_job(study, job, resume=resume)
    (gone_on, kept), (again, left) = begun
    assert (gone_on["resume"], kept) == (str(last), True)
    assert "resume" not in again
    assert not left
    assert again["seed"] == 0
