"""What an epoch costs beyond its steps: the timing itself, and what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from committed import REPOSITORY

EPOCHS: dict[str, Any] = {"model": "yolo26n.yaml", "imgsz": 64, "epochs": 3, "workers": 0, "amp": False}


def test_what_an_epoch_costs_beyond_its_steps_is_what_the_readme_says() -> None:
    found = json.loads((REPOSITORY / "benchmarks" / "results" / "epoch.json").read_text())
    ours, plain = (found[arm]["epoch / steps"] for arm in ("ours", "plain"))
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    assert f"A whole epoch takes {ours:.2f} times its steps, a plain one {plain:.2f} (" in readme
    beyond, of_plain = (found[arm]["beyond"] for arm in ("ours", "plain"))
    (steps,) = {epoch["count"] for arm in ("ours", "plain") for epoch in found[arm]["epochs"]}
    assert f"Beyond its {steps} steps that is {beyond:.2f} s, and {of_plain:.2f} s in a plain one" in readme


def test_an_epoch_is_timed_with_a_teacher_and_without(tiny_data: Path, lively_teacher: Path, tmp_path: Path) -> None:
    import torch
    from epoch import measure

    options = {**EPOCHS, "data": str(tiny_data), "optimizer": "SGD"}
    with pytest.raises(SystemExit, match="epochs=2: expected at least 3"):
        measure(str(lively_teacher), {**options, "epochs": 2}, tmp_path)
    found = measure(str(lively_teacher), options, tmp_path)
    for part in (found, found["without plots"]):
        for name in ("plain", "ours"):
            (epoch,) = part[name]["epochs"]  # the first and the last are not among them
            assert 0 < epoch["steps"] < epoch["epoch"]
            assert part[name]["run / steps"] > part[name]["epoch / steps"] > 1
    assert (tmp_path / "ours-True" / "results.png").exists()
    assert not (tmp_path / "ours-False" / "results.png").exists()
    beyond = found["ours"]["beyond"] - found["plain"]["beyond"]
    assert found["added beyond steps / steps"] == pytest.approx(beyond / found["ours"]["epochs"][0]["steps"])
    assert found["machine"]["device"].startswith("cpu")
    assert found["machine"]["threads"] == str(torch.get_num_threads())


@pytest.mark.parametrize(("nbs", "optimized"), [(2, 4), (8, 1)])
def test_a_step_is_a_batch_whether_the_optimizer_steps_or_not(
    nbs: int, optimized: int, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four batches of two images, three only gather gradients with nbs=8; their time counts as that of steps."""
    from epoch import DEFAULTS, train
    from ultralytics.models.yolo.detect import DetectionTrainer

    done: list[int] = []
    step = DetectionTrainer.optimizer_step
    monkeypatch.setattr(DetectionTrainer, "optimizer_step", lambda self: (done.append(1), step(self))[1])
    sizes = {"batch": 2, "nbs": nbs, "warmup_epochs": 0, "plots": False, "optimizer": "SGD"}
    place = {"data": str(tiny_data), "project": str(tmp_path)}
    found, (device, threads) = train(DetectionTrainer, {**DEFAULTS, **EPOCHS, **sizes, **place})
    assert [epoch["count"] for epoch in found["epochs"]] == [4]
    assert len(done) == 3 * optimized
    assert device.type == "cpu"
    assert threads > 0


def test_what_a_run_costs_beyond_its_steps_by_hand() -> None:
    from epoch import figures

    epochs = [{"epoch": 9.0, "steps": 4.0}, {"epoch": 6.0, "steps": 5.0}, {"epoch": 20.0, "steps": 6.0}]
    found = figures(epochs, 45.0)
    assert found["epochs"] == epochs[1:2]
    assert (found["beyond"], found["epoch / steps"], found["run / steps"]) == (1.0, 1.2, 3.0)
