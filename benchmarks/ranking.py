"""How far does the order of `ima-yolo teachers` predict what a student learns from a teacher?

python benchmarks/ranking.py ../shared/data/bccd out --candidates ../shared/weights/bccd_yolo26s.pt yolo11s.yaml:10

A candidate is a checkpoint, or an architecture and the epochs that it is trained here first (0 leaves it untrained).
Each is looked at as the command does, before any training, and then teaches the student with every seed; it is looked
at once more with the student that learnt without a teacher, whose features say more than an untrained one's. All
figures are written and, for each thing that was seen, its rank correlation (Spearman) with the student's mean accuracy.
Stop it at any time: the next call goes on with what has no result in the folder yet.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from copied import copied
from scipy.stats import spearmanr
from ultralytics.models.yolo.detect import DetectionTrainer

from ima_yolo import IMATrainer
from ima_yolo.cli import read_options
from ima_yolo.files import write_json
from ima_yolo.ranking import rank
from ima_yolo.summary import measure

SEEN = ("accuracy", "cka", "gap", "gap_aligned")
NOTHING = "no teacher"


def main() -> None:
    """Train the candidates, look at them, train the students, and write what was found."""
    options = _options()
    output: Path = options.output.absolute()
    output.mkdir(parents=True, exist_ok=True)
    data = copied(options.data, output)
    files = {name: _candidate(name, data, output, options) for name in options.candidates}
    seen = {"untrained": _seen(options.student, "untrained", files, data, output, options)}
    outcomes: dict[str, list[float]] = {}
    for seed in options.seeds:
        for name, file in {NOTHING: None, **files}.items():
            outcomes.setdefault(name, []).append(_outcome(name, file, seed, data, output, options))
    taught_by_none = _folder(NOTHING, options.seeds[0], output) / "weights" / "last.pt"
    seen["trained"] = _seen(str(taught_by_none), "trained", files, data, output, options)
    print(_report(seen, outcomes, output))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of a detection set, which is copied")
    parser.add_argument("output", type=Path, help="folder for everything that is written")
    parser.add_argument("--candidates", nargs="+", required=True, help="checkpoint.pt, or architecture.yaml:EPOCHS")
    parser.add_argument("--student", default="yolo26n.yaml")
    parser.add_argument("--imgsz", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=15, help="of a student")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--settings", nargs="*", default=[], help="keys beyond the defaults, such as ima_gate=False")
    return parser.parse_args()


def _common(data: Path, options: argparse.Namespace) -> dict[str, Any]:
    shared = {"data": str(data), "imgsz": options.imgsz, "batch": options.batch, "nbs": options.batch}
    return {**shared, "workers": 0, "plots": False, "optimizer": "AdamW", "lr0": 0.001, "exist_ok": True, "amp": False}


def _candidate(name: str, data: Path, output: Path, options: argparse.Namespace) -> Path:
    """The checkpoint of a candidate, trained here if it is an architecture."""
    if name.endswith(".pt"):
        return Path(name).absolute()
    architecture, _, epochs = name.partition(":")
    folder = output / "teachers" / name.replace(":", "-")
    kept = folder / "weights" / "kept.pt"
    if not kept.exists():
        # an epoch at a learning rate of almost nothing makes an untrained checkpoint that knows the data's classes
        untrained = {"lr0": 1e-9, "warmup_epochs": 0} if epochs == "0" else {}
        changed = {"epochs": max(1, int(epochs)), "val": False, "seed": 100, **untrained}
        place = {"model": architecture, "project": str(folder.parent), "name": folder.name}
        DetectionTrainer(overrides={**_common(data, options), **changed, **place}).train()
        (folder / "weights" / "last.pt").rename(kept)
    return kept


def _seen(
    student: str, kind: str, files: dict[str, Path], data: Path, output: Path, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """What `ima-yolo teachers` says of each for a student, by name."""
    kept = output / f"seen-{kind}.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    if found.keys() != files.keys():
        by_file = {str(file): name for name, file in files.items()}
        looked = rank(student, data, list(by_file), options.imgsz)
        found = {by_file[found.name]: {**asdict(found), "name": by_file[found.name]} for found in looked}
        write_json(kept, found)
    return found


def _outcome(name: str, file: Path | None, seed: int, data: Path, output: Path, options: argparse.Namespace) -> float:
    """MAP50-95 on the validation images of the student that a teacher made, from its last epoch."""
    folder = _folder(name, seed, output)
    result = folder / "outcome.json"
    if not result.exists():
        place = {"project": str(folder.parent), "name": folder.name, "seed": seed, "model": options.student}
        overrides = {**_common(data, options), **place, "epochs": options.epochs, "val": False}
        ours = {"teacher": str(file), **read_options(options.settings)}
        trainer = IMATrainer(overrides={**overrides, **ours}) if file else DetectionTrainer(overrides=overrides)
        trainer.train()
        row = measure(trainer.last, data, options.imgsz, name, device="cpu", workers=0)
        write_json(result, {"map50_95": row.map50_95, "map50": row.map50})
    return float(json.loads(result.read_text())["map50_95"])


def _folder(name: str, seed: int, output: Path) -> Path:
    return output / "students" / f"{Path(name.replace(':', '-')).name.replace(' ', '-')}-{seed}"


def _report(seen: dict[str, dict[str, dict[str, Any]]], outcomes: dict[str, list[float]], output: Path) -> str:
    """Write figures and tables, one for each student that looked; return the tables."""
    reached = {name: float(np.mean(values)) for name, values in outcomes.items()}
    order = sorted(seen["untrained"], key=lambda name: -reached[name])
    lines, correlation = [], {}
    for kind, found in seen.items():
        correlation[kind] = {
            key: float(spearmanr([found[name][key] for name in order], [reached[name] for name in order]).statistic)
            for key in SEEN
        }
        lines += [f"Looked at with the {kind} student", ""]
        lines += ["| teacher | mAP50-95 | CKA | gap | gap aligned | student |", "|---|---:|---:|---:|---:|---:|"]
        for name in order:
            cells = " | ".join(f"{found[name][key]:.3f}" for key in SEEN)
            lines.append(f"| {Path(name).name} | {cells} | {_spread(outcomes[name])} |")
        lines.append(f"| {NOTHING} | | | | | {_spread(outcomes[NOTHING])} |")
        lines.append("| rank correlation | " + " | ".join(f"{correlation[kind][key]:+.2f}" for key in SEEN) + " | |")
        lines.append("")
    write_json(output / "report.json", {"seen": seen, "outcomes": outcomes, "rank_correlation": correlation})
    text = "\n".join(lines).rstrip()
    (output / "report.md").write_text(text + "\n", encoding="utf-8")
    return text


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


if __name__ == "__main__":
    main()
