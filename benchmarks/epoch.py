"""What a training costs beyond its steps: loading, logging, checkpoints and plots, with a teacher and without.

    python benchmarks/epoch.py ../shared/data/bccd/data.yaml teacher=yolo26s.pt imgsz=224   # any key of training

Trains a YOLO26n for a few epochs, plainly and with the teacher, each with plots and without, after one epoch that only
fills caches, and writes a JSON file. A step is a batch: from the moment it is loaded until Ultralytics logs it, whether
the optimizer steps on it or only gathers its gradients. Two things are counted:

- "epoch / steps": an epoch, from its start to its checkpoint, over the steps in it. The first epoch, which draws
  pictures of the batches, and the last, which Ultralytics always validates, are left out.
- "run / steps": the whole run over all its steps, from the making of the trainer to the end, with building the models,
  loading the teacher, every epoch, the last validation, and plots where they are on.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")

OUTPUT = Path(__file__).parent / "results" / "epoch.json"
DEFAULTS: dict[str, Any] = {"model": "yolo26n.yaml", "epochs": 5, "batch": 8, "nbs": 8, "val": False}
LEAST = 3  # epochs


class Clock:
    """Callbacks that time each epoch of a training, and the steps in it.

    Attributes:
        epochs: Seconds of each epoch and of its steps, and how many steps it had.
        threads: Of PyTorch, while it trained.
    """

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.epochs: list[dict[str, float]] = []
        self.threads = 0
        self._epoch = self._step = self._steps = 0.0
        self._count = 0
        self._is_open = self._is_in_step = False

    def attach(self, trainer: Any) -> None:
        """Add the callbacks to a trainer, and the end of each step: Ultralytics asks for the memory as it logs one."""
        for event in ("on_train_epoch_start", "on_train_batch_start", "on_fit_epoch_end"):
            trainer.add_callback(event, getattr(self, f"_{event}"))
        memory = trainer._get_memory

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._end_step(trainer.device)
            return memory(*args, **kwargs)

        trainer._get_memory = timed

    def _on_train_epoch_start(self, _: Any) -> None:
        import torch

        self._epoch, self._steps, self._count, self._is_open = time.perf_counter(), 0.0, 0, True
        self.threads = torch.get_num_threads()

    def _on_train_batch_start(self, _: Any) -> None:
        self._step, self._is_in_step = time.perf_counter(), True

    def _end_step(self, device: Any) -> None:
        if not self._is_in_step:  # the memory is asked for at other times too
            return
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
        self._steps += time.perf_counter() - self._step
        self._count += 1
        self._is_in_step = False

    def _on_fit_epoch_end(self, _: Any) -> None:
        if self._is_open:  # it comes once more after the last epoch
            taken = time.perf_counter() - self._epoch
            self.epochs.append({"epoch": taken, "steps": self._steps, "count": self._count})
        self._is_open = False


def measure(teacher: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train plainly and with a teacher, with plots and without; return what each costs beyond its steps.

    Args:
        teacher: Checkpoint.
        options: Keys of training, `DEFAULTS` where they are missing; `plots` is on for "plain" and "ours".
        folder: Where the runs go.
    """
    from ultralytics.models.yolo.detect import DetectionTrainer

    from ima_yolo import IMATrainer
    from ima_yolo.config import split
    from ima_yolo.speed.report import machine

    options = {**DEFAULTS, **options, "project": str(folder)}
    if int(options["epochs"]) < LEAST:
        raise SystemExit(
            f"epochs={options['epochs']}: expected at least {LEAST}, of which the first and last are left out"
        )
    own, options = split(options)  # what is ours means nothing to a plain training
    taught = {**own, "teacher": teacher}
    train(DetectionTrainer, {**options, "epochs": 1, "name": "first", "plots": False})
    found: dict[str, Any] = {"without plots": {}}
    for plots, into in ((True, found), (False, found["without plots"])):
        for name, kind, extra in (("plain", DetectionTrainer, {}), ("ours", IMATrainer, taught)):
            into[name], where = train(kind, {**options, **extra, "name": f"{name}-{plots}", "plots": plots})
    added = found["ours"]["beyond"] - found["plain"]["beyond"]
    steps = median(each["steps"] for each in found["ours"]["epochs"])
    device, threads = where
    place = {**machine(device), "threads": str(threads)}
    return {**found, "added beyond steps / steps": added / steps, "machine": place}


def train(kind: Any, options: dict[str, Any]) -> tuple[dict[str, Any], tuple[Any, int]]:
    """Train once; return its figures, and the device and threads that it had."""
    clock, start = Clock(), time.perf_counter()
    trainer: Any = kind(overrides=options)
    clock.attach(trainer)
    trainer.train()
    return figures(clock.epochs, time.perf_counter() - start), (trainer.device, clock.threads)


def figures(epochs: list[dict[str, float]], run: float) -> dict[str, Any]:
    """What a training cost beyond its steps.

    Args:
        epochs: All of it, as `Clock` found them.
        run: Seconds of the whole run.
    """
    between = epochs[1:-1] or epochs
    steps = sum(each["steps"] for each in epochs)
    return {
        "epochs": between,
        "beyond": median(each["epoch"] - each["steps"] for each in between),
        "epoch / steps": median(each["epoch"] / each["steps"] for each in between),
        "run": run,
        "run / steps": run / steps,
    }


def main() -> None:
    """Read the words, measure, write."""
    from ima_yolo.cli import read_options
    from ima_yolo.experiment.identity import code_version
    from ima_yolo.files import write_json
    from ima_yolo.speed.results import today

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="YAML of a data set")
    parser.add_argument("settings", nargs="*", help="teacher= and any key of training")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    words = parser.parse_args()
    options = {**read_options(words.settings), "data": words.data}
    teacher = str(options.pop("teacher", ""))
    with TemporaryDirectory() as folder:
        result = measure(teacher, options, Path(folder))
    shown = {key: value for key, value in options.items() if key != "data"}
    result |= {"settings": {**DEFAULTS, **shown}, "code": code_version(), "date": today()}
    write_json(words.output, result)
    for said, part in (("with plots", result), ("without plots", result["without plots"])):
        for name in ("plain", "ours"):
            one = part[name]
            print(f"{name}, {said}: epoch / steps {one['epoch / steps']:.3f}, run / steps {one['run / steps']:.3f}")
    print(f"the teacher adds {100 * result['added beyond steps / steps']:.1f}% of its steps beyond them")


if __name__ == "__main__":
    main()
