"""What cheaper ways to ask a teacher cost in accuracy: fewer images, fewer batches, images that are always the same.

    python benchmarks/cheaper.py ../shared/data/bccd/data.yaml teacher=../shared/weights/bccd_yolo26s.pt imgsz=160

Trains a YOLO26n from random weights with each way and seed (any key of training may be given), and writes a JSON file a
training. Stop it at any time: the next call goes on with those that have none. `--ways` and `--seeds` take a part of
them, so that several calls can share the work.

The features of a teacher could be kept only for images that nothing changes from epoch to epoch: "fixed images" is a
training on such, with the teacher looking anew, so that the accuracy is that of kept features, whatever they cost.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")

OUTPUT = Path(__file__).parent / "results" / "cheaper"
DEFAULTS: dict[str, Any] = {"model": "yolo26n.yaml", "epochs": 10, "batch": 8, "nbs": 8, "optimizer": "AdamW"}
DEFAULTS |= {"lr0": 0.001, "warmup_epochs": 1, "cache": "ram", "amp": False, "workers": 0, "plots": False}
UNCHANGED = dict.fromkeys(
    ("mosaic", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr", "erasing", "close_mosaic"), 0
)


WAYS: dict[str, dict[str, Any]] = {
    "every batch": {},
    "half of each batch": {"ima_batch_share": 0.5},
    "every second batch": {"ima_every": 2},
    "fixed images": UNCHANGED,
}
"""Name -> keys of training."""


def train(way: str, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Train once; return mean average precision on the validation images, 0 to 1."""
    from ima_yolo import IMATrainer

    keys = WAYS[way]
    with TemporaryDirectory() as folder:
        trainer = IMATrainer(overrides={**DEFAULTS, **options, **keys, "seed": seed, "project": folder})
        trainer.train()
    figures = trainer.metrics
    found = {name: float(figures[f"metrics/{name}(B)"]) for name in ("mAP50-95", "mAP50")}
    return {"way": way, "seed": seed, **found, "settings": {**DEFAULTS, **keys, **options}}


def main() -> None:
    """Read the words, train what has no result, write."""
    from ima_yolo.cli import read_options
    from ima_yolo.files import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="YAML of a data set")
    parser.add_argument("settings", nargs="*", help="teacher= and any key of training")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder")
    words = parser.parse_args()
    words.output.mkdir(parents=True, exist_ok=True)
    options = {**read_options(words.settings), "data": words.data}
    for seed in words.seeds:
        for way in words.ways:
            file = words.output / f"{way.replace(' ', '-')}-seed{seed}.json"
            if file.exists():
                print(f"{way}, seed {seed}: has a result", flush=True)
                continue
            found = train(way, seed, options)
            shown = {
                key: Path(str(value)).name if key in ("data", "teacher") else value for key, value in options.items()
            }
            write_json(file, {**found, "settings": {**found["settings"], **shown}})
            print(f"{way}, seed {seed}: {100 * found['mAP50-95']:.1f} mAP50-95", flush=True)


if __name__ == "__main__":
    main()
