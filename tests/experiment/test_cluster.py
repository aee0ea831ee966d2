"""Trainings through a real Ray on this machine; skipped where the extra is not installed."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ima_yolo.errors import IMAError
from ima_yolo.experiment import cluster, runner
from ima_yolo.experiment.arms import NAMED
from ima_yolo.experiment.runner import log_path, run
from ima_yolo.experiment.study import Job, Study, load_study
from ima_yolo.files import write_json

WORKER = """
import json, os, pathlib, sys
folder, arm, seed = sys.argv[1:4]
if arm == "cwd":
    sys.exit("no such layer")
for kind in ("results", "analysis"):
    path = pathlib.Path(folder, kind, f"{arm}-seed{seed}.json")
    path.parent.mkdir(exist_ok=True)
    settings = {"ima": {"ima_loss": "ima"}}.get(arm, {})
    path.write_text(json.dumps({"arm": arm, "seed": int(seed), "settings": settings}))
print("trained", arm)
"""


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[Any]:
    ray = pytest.importorskip("ray", reason="the extra ima-yolo[ray] is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    arms = (NAMED["none"], NAMED["cwd"], NAMED["ima"])
    made = Study(
        tmp_path / "study", {"holdout": None}, {"epochs": 1}, {"teacher": "t", "model": "s", "data": "d"}, arms, (0,)
    )
    made.save()
    return made


def train_somewhere(study: Study, job: Job, resume: bool) -> Any:
    """What a machine of the cluster does, with a folder of its own and a worker that needs no images."""
    import subprocess

    away = Study(**{**vars(study), "folder": study.folder.parent / "away"})

    def start(study: Study, job: Job, device: str | None, resume: bool) -> Any:
        log = log_path(study, job)
        log.parent.mkdir(parents=True, exist_ok=True)
        words = [sys.executable, "-c", WORKER, str(study.folder), job.arm.name, str(job.seed)]
        with log.open("wb") as file:
            return subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)

    return cluster.train_here(away, job, resume, start)


def test_trainings_run_on_the_cluster_and_their_results_come_back(
    ray: Any, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "POLL", 0.1)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    said: list[str] = []
    failed = run(study, [None] * 3, said.append, cluster.starter(cluster.LOCAL, task=train_somewhere))
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert [job.name for job in failed] == ["cwd-seed0"], said
    assert [result["arm"] for result in study.results()] == ["none", "ima"]
    assert study.analysis_path("ima-seed0").is_file()
    assert "trained ima" in log_path(study, Job(NAMED["ima"], 0)).read_text()
    assert any("FAILED cwd-seed0 with code 1: no such layer" in line for line in said), said
    assert not (study.folder / "runs").exists(), "the checkpoints are where they were trained"


def test_a_machine_that_does_not_share_the_folder_learns_of_arms_and_seeds_that_were_added(study: Study) -> None:
    first = Study(**{**vars(study), "arms": study.arms[:1]})
    for now, job in ((first, Job(NAMED["none"], 0)), (study, Job(NAMED["ima"], 0))):
        assert train_somewhere(now, job, False)[0] == 0
        assert job in load_study(study.folder.parent / "away").jobs()
    more = Study(**{**vars(study), "seeds": (0, 1)})
    assert train_somewhere(more, Job(NAMED["ima"], 1), False)[0] == 0
    assert Job(NAMED["cwd"], 1) in load_study(study.folder.parent / "away").jobs()


def test_another_study_of_that_name_on_a_machine_is_not_gone_on_with(study: Study) -> None:
    job = Job(NAMED["none"], 0)
    assert train_somewhere(study, job, False)[0] == 0
    with pytest.raises(IMAError, match=r"holds another study \(epochs differs\)"):
        train_somewhere(Study(**{**vars(study), "common": {"epochs": 99}}), job, False)


def test_details_of_an_earlier_training_give_way(study: Study) -> None:
    class Ended:
        def wait(self, references: list, timeout: float) -> tuple[list, list]:
            return references, []

        def get(self, _: Any) -> Any:
            return 0, "trained", {"arm": "ima", "seed": 0}, None

    job = Job(NAMED["ima"], 0)
    write_json(study.analysis_path(job.name), {"images": 9})
    assert cluster.RayTask(Ended(), "task", study, job).poll() == 0
    assert study.is_finished(job)
    assert not study.analysis_path(job.name).exists()


def test_room(ray: Any) -> None:
    assert cluster.room() == 2
    assert cluster.room(cpus=0.5) == 4
    assert cluster.room(cpus=8) == 1
    assert cluster.room(cpus=0) == 1


def test_a_task_that_is_stopped_ends(ray: Any, study: Study) -> None:
    reference = ray.remote(lambda: time.sleep(600)).remote()
    task = cluster.RayTask(ray, reference, study, Job(NAMED["ima"], 0))
    assert task.poll() is None
    task.terminate()
    for _ in range(600):  # a busy machine takes its time
        if task.poll() is not None:
            break
        time.sleep(0.1)
    assert task.poll() == 1
    assert log_path(study, task.job).read_text()


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(IMAError, match=r"pip install '\.\[ray\]'"):
        cluster.starter("auto")


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_machine_that_does_not_answer_is_one_line_at_once(form: str) -> None:
    """Ray itself tries again for many minutes."""
    pytest.importorskip("ray", reason="the extra ima-yolo[ray] is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(free.getsockname()[1])  # bound, and nobody listens
        began = time.monotonic()
        with pytest.raises(IMAError, match=f"ray={address}: no answer from there"):
            cluster.starter(address)
    assert time.monotonic() - began < cluster.ANSWERS_WITHIN + 5


def test_a_cluster_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("ray", reason="the extra ima-yolo[ray] is not installed")
    with pytest.raises(IMAError, match="ray=auto: "):
        cluster.starter("auto")
