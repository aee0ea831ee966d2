"""A model that knows one set of pictures by heart: no published weights are at hand, and an untrained one has no mAP.

    python benchmarks/overfitted.py yolo26n.yaml ../shared/data/coco128/data.yaml known.pt imgsz=192 epochs=100

It trains on the validation pictures themselves, without augmentation. Its accuracy says nothing about the method: it
only gives two readers of one file, or a float and an int8 file, detections to differ by.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from copied import copied
from lively import SMALL_RTDETR
from ultralytics import RTDETR, YOLO

from ima_yolo.cli import read_options

WIDE_RTDETR = {
    **SMALL_RTDETR,
    "backbone": [[-1, 1, "Conv", [c, 3, 2]] for c in (16, 32, 64, 128, 128)],
    "head": [[[2, 3, 4], 1, "RTDETRDecoder", ["nc", 64, 60, 4, 4, 2]]],
}
"""An RT-DETR of five convolutions, 64 channels and 60 queries, which learns a few pictures in minutes on a CPU."""

NO_CHANGES = ("mosaic", "fliplr", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "erasing", "copy_paste")
STEPS = {"optimizer": "AdamW", "lr0": 0.002, "weight_decay": 0.0, "warmup_epochs": 2, "batch": 8, "nbs": 8, "seed": 0}
QUICK = {"cache": "ram", "workers": 0, "plots": False, "val": False, "verbose": False}
PLAIN: dict[str, Any] = {**dict.fromkeys(NO_CHANGES, 0.0), "auto_augment": None, **STEPS, **QUICK}
"""Nothing that keeps a model from learning its pictures by heart."""


def on_its_own_pictures(data: Path) -> None:
    """Make a data set train on its validation pictures."""
    content = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump({**content, "train": content["val"], "path": str(data.parent)}, sort_keys=False))


def overfit(name: str, data: Path, target: Path, folder: Path, callbacks: Mapping[str, Any], **args: Any) -> Path:
    """Train a model from random weights, or go on with a training that was stopped.

    Args:
        name: An Ultralytics architecture (.yaml), or "rtdetr" for `WIDE_RTDETR`.
        data: data.yaml of a data set; it is copied.
        target: The checkpoint to write.
        folder: Where the copy and the run lie; what is there is gone on with.
        callbacks: Event of Ultralytics -> what it calls.
        **args: As in `yolo train`, over `PLAIN`.
    """
    copy, last = copied(data.parent, folder), folder / "run" / "weights" / "last.pt"
    on_its_own_pictures(copy)
    config = folder / "rtdetr-wide.yaml"
    config.write_text(yaml.safe_dump({"nc": 80, **WIDE_RTDETR}))
    source = config if name == "rtdetr" else name
    yolo = (RTDETR if name == "rtdetr" else YOLO)(last if last.exists() else source)
    for event, call in callbacks.items():
        yolo.add_callback(event, call)
    where = {"project": str(folder), "name": "run", "exist_ok": True}
    yolo.train(**({"resume": True} if last.exists() else {"data": str(copy), **where, **PLAIN, **args}))
    return Path(shutil.copyfile(folder / "run" / "weights" / "last.pt", target))


def main(words: Sequence[str]) -> None:
    """Read the command line and train."""
    options = read_options(words)
    name, data, target = options.pop("")
    with tempfile.TemporaryDirectory() as folder:
        overfit(name, Path(data).resolve(), Path(target).resolve(), Path(folder), {}, **options)


if __name__ == "__main__":
    main(sys.argv[1:])
