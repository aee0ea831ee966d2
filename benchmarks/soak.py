"""Does a long process grow? Many steps of one training, and many trainings one after the other.

    python benchmarks/soak.py                            # 2,000 steps and 50 trainings: a few minutes on two cores
    python benchmarks/soak.py --steps 60 --runs 4 --output /tmp/soak.json

Each epoch is validated and saved. Counted after each epoch and each training: memory, threads, open files, hooks on
modules, living modules and tensors. Writes a JSON file with every count; exit code 1 if one of them grew after the
first fifth, where buffers are filled.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")

OUTPUT = Path(__file__).parent / "results" / "soak.json"
BATCH, IMAGES, SIZE = 2, 20, 64
ROOM = {"MB": 20.0, "tensors": 25.0, "threads": 4.0}
"""What may be more after the first fifth: what the allocator keeps, the values of the watch over a term, up to 20, and
the last threads of a pool (Polars', by which Ultralytics reads results.csv) that begin when there is work for them.
A leak of one tensor a step, or of one a training, would be many times that over a whole soak."""
ARCHITECTURE = """\
nc: 3
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[2, 3, 4], 1, Detect, [nc]]
"""
Sample = dict[str, float]


def sample() -> Sample:
    """Count what could grow, after garbage was collected."""
    import torch

    gc.collect()
    modules, tensors, hooks = 0, 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some living objects warn when they are looked at
        for thing in gc.get_objects():
            kind = type(thing)
            if issubclass(kind, torch.nn.Module):
                modules += 1
                hooks += len(thing._forward_hooks) + len(thing._forward_pre_hooks) + len(thing._backward_hooks)
            elif issubclass(kind, torch.Tensor):
                tensors += 1
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "MB": round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1),
        "threads": max(threading.active_count(), len(list(Path("/proc/self/task").iterdir()))),
        "files": len(list(Path("/proc/self/fd").iterdir())),
        "hooks": hooks,
        "modules": modules,
        "tensors": tensors,
    }


def growth(samples: Sequence[Sample]) -> Sample:
    """How far the mean of the last fifth lies above the mean of the second: later than the buffers of the first."""
    fifth = max(1, len(samples) // 5)
    early, late = samples[fifth : 2 * fifth] or samples[:1], samples[-fifth:]
    return {
        key: round(sum(one[key] for one in late) / len(late) - sum(one[key] for one in early) / len(early), 2)
        for key in samples[0]
    }


def has_grown(found: Sample) -> list[str]:
    """Which counts grew beyond the room that they have."""
    return [key for key, more in found.items() if more > ROOM.get(key, 0.5)]


def prepare(folder: Path) -> dict[str, Any]:
    """Draw a set and write two small checkpoints; return the options of a training."""
    from ultralytics import YOLO

    from ima_yolo.demo.scenes import draw_set

    data = draw_set(folder / "data", IMAGES, 4, seed=0)
    (folder / "small.yaml").write_text(ARCHITECTURE)
    models = {}
    for name in ("teacher", "student"):
        models[name] = str(folder / f"{name}.pt")
        YOLO(folder / "small.yaml", verbose=False).save(models[name])
    keys = {
        "data": str(data),
        "imgsz": SIZE,
        "batch": BATCH,
        "nbs": BATCH,
        "workers": 0,
        "optimizer": "AdamW",
        "lr0": 1e-4,
    }
    quiet = {"plots": False, "device": "cpu", "project": str(folder), "exist_ok": True}
    return {**models, **keys, **quiet, "warmup_epochs": 0, "close_mosaic": 0, "patience": 0}


def many_steps(options: dict[str, Any], steps: int, say: Callable[[str], None]) -> list[Sample]:
    """One training; a sample after each epoch."""
    from ima_yolo import IMATrainer

    epochs, samples = max(1, steps * BATCH // IMAGES), []
    own = {**options, "model": options["student"], "epochs": epochs, "name": "steps"}
    trainer = IMATrainer(overrides={key: value for key, value in own.items() if key != "student"})

    def note(training: Any) -> None:
        samples.append(sample())
        say(f"epoch {training.epoch + 1} of {epochs}: {samples[-1]}")

    trainer.add_callback("on_train_epoch_end", note)
    trainer.train()
    return samples


def many_runs(options: dict[str, Any], runs: int, say: Callable[[str], None]) -> list[Sample]:
    """One training after the other; a sample after each."""
    from ultralytics import YOLO

    from ima_yolo import IMATrainer

    samples = []
    own = {key: value for key, value in options.items() if key != "student"}
    for run in range(runs):
        YOLO(options["student"]).train(trainer=IMATrainer, epochs=1, name="runs", **own)
        samples.append(sample())
        say(f"training {run + 1} of {runs}: {samples[-1]}")
    return samples


def soak(steps: int, runs: int, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Do both and judge."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel("ERROR")
    start, found = time.monotonic(), {}
    try:
        options = prepare(folder)
        for name, parts in (("steps", many_steps(options, steps, say)), ("runs", many_runs(options, runs, say))):
            grown = growth(parts)
            found[name] = {"growth": grown, "grown": has_grown(grown), "first": parts[0], "last": parts[-1]}
    finally:
        LOGGER.setLevel(level)
    asked = {"steps": steps, "runs": runs}
    return {"asked": asked, "seconds": round(time.monotonic() - start), "cores": os.cpu_count(), **found}


def main() -> int:
    """Read the words, run, write, and judge."""
    from ima_yolo.files import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    words = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = soak(words.steps, words.runs, Path(folder), lambda line: print(line, flush=True))
    write_json(words.output, found)
    grown = {name: found[name]["grown"] for name in ("steps", "runs") if found[name]["grown"]}
    print(f"{words.output}: {grown or 'nothing grew'}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
