"""Killed by SIGKILL, which tidies nothing up: a resumed run ends as one that was never stopped, bit for bit."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import torch_safe_load

CHILDREN = """
import json, os, random, signal, sys, time, traceback
from pathlib import Path
import torch
from ultralytics.models.yolo.detect import DetectionValidator
from ima_yolo import IMATrainer
from ima_yolo.errors import IMAError

torch.set_num_threads(1)  # a process that has begun others cannot be forked

def begun(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child

def in_a_child(work):
    return os.waitpid(begun(work), 0)[1]

options = json.loads(sys.argv[1])
began = time.monotonic()
assert in_a_child(lambda: IMATrainer(overrides={**options, "name": "whole"}).train()) == 0
whole = time.monotonic() - began  # seconds
"""
NAMED = """
def die():
    os.kill(os.getpid(), signal.SIGKILL)

def at(place, name, count, fits=lambda *args: True, work=lambda original, args: None):
    '''Die at the count-th call of a function that fits, after a part of its work.'''
    original, seen = getattr(place, name), [0]
    def dying(*args, **rest):
        if fits(*args):
            seen[0] += 1
            if seen[0] == count:
                work(original, args)
                die()
        return original(*args, **rest)
    setattr(place, name, dying)

def half(original, args):
    original(args[0], args[1][:len(args[1]) // 2])

def named(name):
    return lambda path, *rest: Path(path).name == name

def moved_to(folder, name):
    return lambda source, target: Path(source).parent.name == folder and Path(target).name == name

def row(original, args):
    with args[0].csv.open("a") as file:
        file.write("3,1.5,0.")

def part_of_a_file(original, args):
    Path(args[1]).write_bytes(b"PK half")

POINTS = {
    "before the first checkpoint": lambda: at(torch.optim.AdamW, "step", 1),
    "in the middle of the first checkpoint": lambda: at(Path, "write_bytes", 1, named("last.pt"), half),
    "before a backward pass": lambda: at(torch.Tensor, "backward", 5),
    "in a step": lambda: at(torch.optim.AdamW, "step", 3, work=lambda original, args: original(*args)),
    "in a validation": lambda: at(DetectionValidator, "update_metrics", 2),
    "in a row of the results": lambda: at(IMATrainer, "save_metrics", 3, work=row),
    "in the middle of last.pt": lambda: at(Path, "write_bytes", 2, named("last.pt"), half),
    "between the two checkpoints": lambda: at(os, "replace", 2, moved_to(".saving", "last.pt")),
    "once last.pt is in its place": lambda: at(
        os, "replace", 2, moved_to(".saving", "last.pt"), lambda original, args: original(*args)
    ),
    "once the last last.pt is in its place": lambda: at(
        os, "replace", 3, moved_to(".saving", "last.pt"), lambda original, args: original(*args)
    ),
    "in the last evaluation": lambda: at(DetectionValidator, "update_metrics", 4),
    "while best.pt is finished": lambda: at(
        torch, "save", 1, lambda content, target, *rest: ".partial" in str(target) and content.get("epoch") == -1,
        part_of_a_file,
    ),
    "before last.pt is finished": lambda: at(os, "replace", 1, moved_to(".finishing", "last.pt")),
}

for name in json.loads(sys.argv[2]):
    def killed(name=name):
        POINTS[name]()
        IMATrainer(overrides={**options, "name": name}).train()
    status = in_a_child(killed)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (name, status)
    last = Path(options["project"]) / name / "weights" / "last.pt"
    (last.parent / "noted.json").write_text(json.dumps(sorted(file.name for file in last.parent.iterdir())))
    if last.exists():
        overrides = {"resume": str(last)}
    else:  # nothing to go on from: it says so, and the same call begins again
        try:
            IMATrainer(overrides={"resume": str(last)})
            raise AssertionError(name)
        except IMAError as error:
            assert "was stopped before its first checkpoint; start it again" in str(error), (name, str(error))
        overrides = {**options, "name": name, "exist_ok": True}
    assert in_a_child(lambda: IMATrainer(overrides=overrides).train()) == 0, name
"""
RANDOM = """
KILLS_OF_A_RUN = 4

def killed_after(seconds, work):
    '''Whether a process was killed that many seconds after its start; False if it had ended by then.'''
    child = begun(work)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (ended := os.waitpid(child, os.WNOHANG)) != (0, 0):
            assert ended[1] == 0, ended
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

wanted, rng, kills, runs = int(sys.argv[2]), random.Random(int(sys.argv[3])), [], 0
while len(kills) < wanted:
    runs += 1
    name, last = f"run{runs}", Path(options["project"]) / f"run{runs}" / "weights" / "last.pt"
    work = lambda: IMATrainer(overrides={**options, "name": name}).train()
    for _ in range(KILLS_OF_A_RUN):
        if not killed_after(delay := rng.uniform(0, whole), work):
            whole *= 0.9  # it had ended before
            break
        if not last.exists():
            whole *= 1.1  # a busier machine than when it was measured would never come so far
            break  # nothing to go on from yet
        left = sorted(file.name for file in last.parent.iterdir())
        ended = torch.load(last, weights_only=False)["epoch"] < 0
        kills.append({"run": name, "seconds": round(delay, 3), "whole": round(whole, 3), "left": left, "ended": ended})
        if ended:
            break  # nothing left to do
        work = lambda: IMATrainer(overrides={"resume": str(last)}).train()
    else:
        assert in_a_child(work) == 0  # one whose next checkpoint takes longer than any delay would be killed for ever
print("\\n" + json.dumps(kills))
"""
# point -> what lies beside the checkpoints when the process is gone, as a proof that nothing was tidied up
POINTS = {
    "before the first checkpoint": [],
    "in the middle of the first checkpoint": [".saving"],
    "before a backward pass": [],
    "in a step": [],
    "in a validation": [],
    "in a row of the results": [],
    "in the middle of last.pt": [".saving"],
    "between the two checkpoints": [".saving"],
    "once last.pt is in its place": [".saving"],
    "once the last last.pt is in its place": [".saving"],
    "in the last evaluation": [".finishing"],
    "while best.pt is finished": [".finishing"],
    "before last.pt is finished": [".finishing"],
}


KILLS = 20


def outcome(run: Path) -> tuple[dict[str, torch.Tensor], list[list[str]]]:
    """Final weights, and the rows of results.csv but for the time that they took."""
    weights = torch_safe_load(run / "weights" / "last.pt", safe_only=True)[0]["model"].state_dict()
    with (run / "results.csv").open() as file:
        return weights, [[row[0], *row[2:]] for row in csv.reader(file)]


@pytest.fixture
def options(tiny_data: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> dict[str, Any]:
    return {
        "teacher": str(tiny_checkpoint("yolo26s-few.yaml", seed=1)),
        "model": str(tiny_checkpoint()),
        "data": str(tiny_data),
        "epochs": 3,
        "imgsz": 64,
        "batch": 3,
        "nbs": 6,
        "plots": False,
        "device": "cpu",
        "project": str(tmp_path),
        "lr0": 0.002,
        "optimizer": "AdamW",
        "warmup_epochs": 1,
        "close_mosaic": 1,
        "ima_gate": False,  # or an untrained teacher, which knows nothing more, rests
    }


def run_script(text: str, *words: object) -> str:
    command = [sys.executable, "-c", CHILDREN + text, *map(json.dumps, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def assert_same(run: Path, whole: Path, about: object) -> None:
    (found, found_rows), (weights, rows) = outcome(run), outcome(whole)
    assert [row[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert found_rows == rows, about
    for key, value in weights.items():
        assert torch.equal(found[key], value), f"{about}: {key}"


@pytest.mark.timeout(600)
def test_a_run_that_is_killed_anywhere_goes_on_exactly(options: dict[str, Any], tmp_path: Path) -> None:
    run_script(NAMED, options, list(POINTS))
    for name, left in POINTS.items():
        run = tmp_path / name
        noted = json.loads((run / "weights" / "noted.json").read_text())
        assert [file for file in noted if file.startswith(".")] == left, name
        assert_same(run, tmp_path / "whole", name)
        kept = sorted(file.name for file in (run / "weights").iterdir())
        assert kept == ["best.pt", "last.pt", "noted.json"], name


@pytest.mark.timeout(600)
def test_a_run_that_is_killed_at_random_times_goes_on_exactly(options: dict[str, Any], tmp_path: Path) -> None:
    """Wherever the clock says; a resumed run is killed too. What the clock said is in the message of a failure."""
    kills = json.loads(run_script(RANDOM, options, KILLS, 0).splitlines()[-1])
    assert len(kills) >= KILLS
    assert sum(not kill["ended"] for kill in kills) >= KILLS / 2, "most are gone on from"
    for name in {kill["run"] for kill in kills}:
        own = [kill for kill in kills if kill["run"] == name]
        assert_same(tmp_path / name, tmp_path / "whole", own)
        kept = {file.name for file in (tmp_path / name / "weights").iterdir()}
        kept -= {".finishing"} if own[-1]["ended"] else set()  # nobody is left to tidy up
        assert kept == {"best.pt", "last.pt"}, own
