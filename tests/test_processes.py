"""Ultralytics' own loop in several processes, by `benchmarks/processes.py`: what reaches them, what they end with."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from processes import CLASSES
from ultralytics.nn.tasks import torch_safe_load

from ima_yolo.trainer import processes

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
COMMON = {"imgsz": 64, "batch": 4, "plots": False, "optimizer": "AdamW", "lr0": 0.001, "nbs": 4, "device": "cpu"}


class Stop(Exception):
    """Ends a run between two epochs."""


def stop(_: Any) -> None:
    raise Stop


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def outcomes(folder: Path, world: int = 2) -> list[dict[str, Any]]:
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(world)]


def assert_alike(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Student, adapters, weight and gates; not the masks, which each process draws for itself."""
    assert first["student"].keys() == second["student"].keys()
    norms = ("running_mean", "running_var", "num_batches_tracked")
    for name, value in first["student"].items():
        if not name.endswith(norms):  # as Ultralytics keeps them: those of each process's own images
            assert torch.equal(value, second["student"][name]), name
    own, other = first["distiller"], second["distiller"]
    assert own["adapters"].keys() == other["adapters"].keys()
    for name, value in own["adapters"].items():
        assert torch.equal(value, other["adapters"][name]), name
        assert bool(value.isfinite().all())
    assert own["weight"] == other["weight"]
    assert own["gates"] == other["gates"]
    assert not torch.equal(own["rng"], other["rng"])


@pytest.fixture
def options(
    tiny_data: Path, tiny_checkpoint: Callable[..., Path], lively_teacher: Path, tmp_path: Path
) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    (tmp_path / "pool").mkdir()
    for index in range(6):
        cv2.imwrite(str(tmp_path / "pool" / f"{index}.png"), rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    paths = {"model": str(tiny_checkpoint()), "data": str(tiny_data), "project": str(tmp_path / "runs")}
    teacher = f"{lively_teacher},{tiny_checkpoint('yolo26s-few.yaml', seed=3)}"
    own = {"ima_teacher_shares": "3,1", "ima_mask_ratio": 0.3, "ima_unlabelled": str(tmp_path / "pool"), "ima_cls": 0.5}
    return {**COMMON, **paths, **own, "teacher": teacher, "epochs": 2, "name": "two"}


@pytest.mark.timeout(600)
def test_two_processes_are_told_everything_train_alike_and_are_resumed(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started as Ultralytics starts them: it writes the file, calls torch.distributed.run, and waits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    parent = CLASSES["detect"](overrides=options)
    parent.add_callback("on_model_save", stop)
    with pytest.raises(subprocess.CalledProcessError):
        parent.train()
    running, _ = torch_safe_load(parent.last, safe_only=True)
    assert running["epoch"] == 0
    kept = running["ima"]["distiller"]

    again = CLASSES["detect"](overrides={"resume": str(parent.last)})
    assert again.ddp
    again.train()
    first, second = outcomes(again.save_dir)
    assert_alike(first, second)
    for told in (first, second):
        assert told["settings"] == parent.settings.model_dump(mode="json")
        assert told["teachers"] == parent._teacher_digest
        assert told["teachers"].count("+") == 1
        assert told["world_size"] == 2
        assert told["batch"] == 2
        assert all(torch.equal(told["begun"]["adapters"][name], value) for name, value in kept["adapters"].items())
        assert told["begun"]["weight"] == kept["weight"]
    assert any(not torch.equal(first["distiller"]["adapters"][name], value) for name, value in kept["adapters"].items())
    assert not torch.equal(first["begun"]["rng"], second["begun"]["rng"]), "masks of their own after resuming, too"
    assert not torch.equal(first["unlabelled"], second["unlabelled"])
    assert first["passes"] > 0, "another order in each pass"
    with again.csv.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert min(float(row["train/ima_loss"]) for row in rows) > 0
    finished, _ = torch_safe_load(again.last, safe_only=True)
    assert type(finished["model"]).__name__ == "DetectionModel"
    assert finished["epoch"] == -1


KINDS = {
    "rtdetr": "yolov8n-rtdetr.yaml",
    "segment": "yolo26n-seg.yaml",
    "semantic": "yolo26n-sem.yaml",
    "pose": "yolo26n-pose.yaml",
    "obb": "yolo26n-obb.yaml",
}


def run_on_two_nodes(calls: Sequence[Sequence[str]]) -> None:
    """Run trainings by torchrun on two nodes of a process each: this machine, twice, at its loopback address."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    torchrun += ["--master_addr", "127.0.0.1", "--master_port", str(free_port())]
    words = [word for call in calls for word in ("--", *call)][1:]
    running = [
        subprocess.Popen(
            [*torchrun, "--node_rank", str(node), str(BENCHMARKS / "processes.py"), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for node in range(2)
    ]
    for process in running:
        said, _ = process.communicate(timeout=580)
        assert process.returncode == 0, said.decode()[-4000:]


def as_words(options: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in options.items()]


@pytest.mark.timeout(600)
def test_every_task_trains_alike_on_two_nodes(
    options: dict[str, Any], task_data: Callable[[str], Path], lively_teacher: Path, tmp_path: Path
) -> None:
    calls = [as_words({**options, "name": "detect", "epochs": 1, "exist_ok": True})]
    for kind, student in KINDS.items():
        data = task_data("detect" if kind == "rtdetr" else kind)
        chosen = {"student": student, "data": str(data), "teacher": str(lively_teacher), "name": kind, "epochs": 1}
        calls.append(as_words({**COMMON, **chosen, "project": options["project"], "exist_ok": True}))
    run_on_two_nodes(calls)
    for kind in ("detect", *KINDS):
        folder = Path(options["project"]) / kind
        first, second = outcomes(folder)
        assert_alike(first, second)
        assert first["world_size"] == second["world_size"] == 2
        assert first["batch"] == 2
        with (folder / "results.csv").open() as file:
            assert float(next(csv.DictReader(file))["train/ima_loss"]) > 0


def test_torchrun_on_several_nodes_counts_the_processes_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics counts the GPUs of one node."""
    assert [processes(count) for count in (0, 1, 4)] == [0, 1, 4], "without torchrun"
    monkeypatch.setattr("ima_yolo.trainer.RANK", 5)
    monkeypatch.setattr("ima_yolo.trainer.WORLD_SIZE", 8)
    assert [processes(count) for count in (0, 1, 4)] == [0, 8, 8]
