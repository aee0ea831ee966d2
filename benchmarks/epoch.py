"""What an epoch costs beyond its steps: loading, logging and plots, with a teacher and without.

    python benchmarks/epoch.py ../shared/data/bccd/data.yaml teacher=yolo26s.pt imgsz=224   # any key of training

Trains a YOLO26n for a few epochs, plainly and with the teacher, and writes a JSON file: seconds of every epoch, from
its start to its checkpoint, and of the steps in it, from a loaded batch to the changed weights. The first epoch, which
fills caches, and the last, which Ultralytics always validates, are not counted.
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
    """Callbacks that time each epoch of a training, and the steps in it."""

    def __init__(self) -> None:
        """Start with nothing measured."""
        self.epochs: list[dict[str, float]] = []
        self._epoch = self._step = self._steps = 0.0
        self._is_open = False

    def attach(self, trainer: Any) -> None:
        """Add the callbacks to a trainer, and the end of each step."""
        for event in ("on_train_epoch_start", "on_train_batch_start", "on_fit_epoch_end"):
            trainer.add_callback(event, getattr(self, f"_{event}"))
        step = trainer.optimizer_step

        def timed() -> None:
            step()
            self._end_step(trainer.device)

        trainer.optimizer_step = timed

    def _on_train_epoch_start(self, _: Any) -> None:
        self._epoch, self._steps, self._is_open = time.perf_counter(), 0.0, True

    def _on_train_batch_start(self, _: Any) -> None:
        self._step = time.perf_counter()

    def _end_step(self, device: Any) -> None:
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
        self._steps += time.perf_counter() - self._step

    def _on_fit_epoch_end(self, _: Any) -> None:
        if self._is_open:  # it comes once more after the last epoch
            self.epochs.append({"epoch": time.perf_counter() - self._epoch, "steps": self._steps})
        self._is_open = False


def measure(teacher: str, options: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train plainly and with a teacher; return the epochs of both and what they cost beyond their steps."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    from ima_yolo import IMATrainer

    options = {**DEFAULTS, **options}
    if int(options["epochs"]) < LEAST:
        raise SystemExit(
            f"epochs={options['epochs']}: expected at least {LEAST}, of which the first and last are left out"
        )
    found: dict[str, Any] = {}
    for name, kind, extra in (("plain", DetectionTrainer, {}), ("ours", IMATrainer, {"teacher": teacher})):
        clock = Clock()
        trainer: Any = kind(overrides={**options, **extra, "project": str(folder), "name": name})
        clock.attach(trainer)
        trainer.train()
        epochs = clock.epochs[1:-1]
        beyond = median(each["epoch"] - each["steps"] for each in epochs)
        ratio = median(each["epoch"] / each["steps"] for each in epochs)
        found[name] = {"epochs": epochs, "beyond": beyond, "epoch / steps": ratio}
    added = found["ours"]["beyond"] - found["plain"]["beyond"]
    steps = median(each["steps"] for each in found["ours"]["epochs"])
    return {**found, "added beyond steps / steps": added / steps}


def main() -> None:
    """Read the words, measure, write."""
    from ima_yolo.cli import read_options
    from ima_yolo.files import write_json
    from ima_yolo.speed.report import machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="YAML of a data set")
    parser.add_argument("settings", nargs="*", help="teacher= and any key of training")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    words = parser.parse_args()
    options = {**read_options(words.settings), "data": words.data}
    teacher = str(options.pop("teacher", ""))
    with TemporaryDirectory() as folder:
        result = measure(teacher, options, Path(folder))
    import torch

    kind = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shown = {key: value for key, value in options.items() if key != "data"}
    write_json(words.output, {**result, "settings": {**DEFAULTS, **shown}, "machine": machine(kind)})
    for name in ("plain", "ours"):
        part = result[name]
        print(f"{name}: epoch / steps {part['epoch / steps']:.3f}, {part['beyond']:.2f} s beyond its steps")
    print(f"the teacher adds {100 * result['added beyond steps / steps']:.1f}% of its steps beyond them")


if __name__ == "__main__":
    main()
