"""Does the default win? No teacher, Ultralytics' own distillation and ours, over pairs, data sets and starts.

    python benchmarks/proof.py out ../shared/data/bccd/data.yaml ../shared/data/helmet/data.yaml \
        --pairs yolo26n:yolo26s yolo11n:yolo11s --starts scratch converged --seeds 0 1 2

Each data set, pair and start is one `ima-yolo compare` in a folder of its own, on the data set's own validation images
or, with --holdout 0.3, on such a share of its training images, which then train neither students nor teachers.
A teacher that is not at out/teachers/DATA-MODEL.pt is trained there first, and so is the student that begins from its
own converged checkpoint, at out/students/DATA-MODEL.pt, both for twice the student's epochs where --teacher and
--converged say nothing else; a file that is there is taken as it is, and what trained it is told. Stop it at any time:
the next call goes on. Several calls may share a folder, one after the other, each with some of the data sets, pairs,
starts and keys of training.

out/proof.md and proof.json hold what all studies found so far: a row each, and the mean over them, with an interval
over seeds (how far would others move it, studies as they are?) and one over studies (how far would other studies?).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")

DEFAULTS: dict[str, Any] = {"batch": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.001, "warmup_epochs": 1}
DEFAULTS |= {"cache": "ram", "amp": False, "plots": False}
ARMS = ("none", "builtin", "ima")
SEED_OF_TEACHERS = 100
CONVERGED_LR0 = 0.2  # of a student that has converged, times that of one from random weights


@dataclass(frozen=True)
class Cell:
    """One study: a data set, a pair of models, and where the student starts.

    Attributes:
        data: YAML of the data set.
        student: An architecture's name, without its ending.
        teacher: The same.
        start: `scratch` for random weights, `converged` for the student's own checkpoint.
    """

    data: Path
    student: str
    teacher: str
    start: str

    @property
    def name(self) -> str:
        """Of the study's folder."""
        return f"{set_name(self.data)}-{self.student}-{self.teacher}-{self.start}"


def set_name(data: Path) -> str:
    """A data set's name: that of its folder where the file has the usual one."""
    return data.absolute().parent.name if data.stem == "data" else data.stem


def main() -> None:
    """Train what has no result yet, and write what was found."""
    from ima_yolo.cli import main as command
    from ima_yolo.cli import read_options

    options = _options()
    output: Path = options.output.absolute()
    keys = {**DEFAULTS, "imgsz": options.imgsz, "epochs": options.epochs, **read_options(options.keys)}
    if options.holdout is not None:
        options.data = [_held_out(data, options.holdout, output) for data in options.data]
    cells = list(_cells(options))
    for number, cell in enumerate(cells, start=1):
        print(f"study {number} of {len(cells)}: {cell.name}", flush=True)
        of_teacher = {**_longer(keys), **read_options(options.teacher)}
        teacher = _trained(output / "teachers", cell.data, cell.teacher, of_teacher)
        student, own = f"{cell.student}.yaml", keys
        if cell.start == "converged":
            of_student = {**_longer(keys), **read_options(options.converged)}
            student = str(_trained(output / "students", cell.data, cell.student, of_student))
            own = {**keys, "lr0": CONVERGED_LR0 * keys["lr0"]}
        words = {"teacher": teacher, "student": student, "data": cell.data, "arms": ",".join(ARMS), **own}
        words |= {"seeds": ",".join(map(str, options.seeds)), "project": output / "studies", "name": cell.name}
        if options.jobs:
            words["jobs"] = options.jobs
        if command(["compare", *(f"{key}={value}" for key, value in words.items())]) == 2:
            raise SystemExit(2)
        print(summarised(output), flush=True)


def _longer(keys: dict[str, Any]) -> dict[str, Any]:
    """Keys of a training without a teacher that comes before a study's: twice as long, and none of ours."""
    from ima_yolo.experiment.tables import plain_keys

    theirs = {key: value for key, value in plain_keys(keys).items() if key != "force"}
    return {**theirs, "epochs": 2 * keys["epochs"]}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="folder for everything that is written")
    parser.add_argument("data", type=Path, nargs="+", help="YAML files of data sets, and any key of training")
    parser.add_argument("--pairs", nargs="+", default=["yolo26n:yolo26s"], help="STUDENT:TEACHER, names of models")
    parser.add_argument("--starts", nargs="+", choices=("scratch", "converged"), default=["scratch"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--imgsz", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=30, help="of a student")
    parser.add_argument("--teacher", nargs="+", default=[], help="keys of a teacher's training beyond the student's")
    parser.add_argument("--converged", nargs="+", default=[], help="the same of a converged student's")
    parser.add_argument("--holdout", type=float, help="share of train to evaluate on")
    parser.add_argument("--jobs", type=int, help="trainings at a time")
    words = parser.parse_args()
    words.keys = [str(word) for word in words.data if "=" in str(word)]
    words.data = [word for word in words.data if "=" not in str(word)]
    if any(len(pair.split(":")) != 2 for pair in words.pairs):
        parser.error(f"--pairs {' '.join(words.pairs)}: expected STUDENT:TEACHER, and data and keys before the options")
    if words.converged and "converged" not in words.starts:
        parser.error(f"--converged {' '.join(words.converged)}: no student has converged without --starts converged")
    return words


def _cells(options: argparse.Namespace) -> Iterator[Cell]:
    for start in options.starts:
        for pair in options.pairs:
            for data in options.data:
                student, _, teacher = pair.partition(":")
                yield Cell(data, student, teacher, start)


def _held_out(data: Path, share: float, output: Path) -> Path:
    """The description of a data set that holds links to the training images of another, split in two."""
    from ultralytics.data.utils import check_det_dataset

    from ima_yolo.experiment.images import hold_out

    return hold_out(check_det_dataset(str(data)), share, output / "data" / f"{set_name(data)}-{share}")


def _trained(folder: Path, data: Path, model: str, keys: dict[str, Any]) -> Path:
    """The checkpoint of a model on a data set, trained here unless it is there; a training that was stopped goes on."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    kept = folder / f"{set_name(data)}-{model}.pt"
    run = folder / "runs" / kept.stem
    last = run / "weights" / "last.pt"
    if kept.exists():
        _tell_what_is_there(kept)
    elif not _is_trained(last):
        place = {"model": f"{model}.yaml", "data": str(data), "project": str(run.parent), "name": run.name}
        fresh = {**keys, **place, "exist_ok": True, "seed": SEED_OF_TEACHERS}
        DetectionTrainer(overrides={"resume": str(last), "model": str(last)} if last.exists() else fresh).train()
    if not kept.exists():
        last.with_name("best.pt").replace(kept)
    return kept


def _tell_what_is_there(kept: Path) -> None:
    """A file may be of the user's own making: it is taken whatever this call would train, and its training is told."""
    from ima_yolo.host import load_model

    had = load_model(kept, "model")[1].get("train_args") or {}
    told = " ".join(f"{key}={had[key]}" for key in ("epochs", "imgsz", "batch", "lr0", "fraction") if key in had)
    print(f"{kept} is there and is taken, trained with {told or 'settings that it does not hold'}", flush=True)


def _is_trained(last: Path) -> bool:
    """Whether a training has all its epochs behind it, whatever it was stopped at then."""
    from ima_yolo.host import load_model

    return last.exists() and load_model(last, "model")[1]["epoch"] == -1


def summarised(output: Path) -> str:
    """Write what all studies of a folder found so far, and return it as a table."""
    from ima_yolo.experiment.statistics import averaged, over_comparisons, paired
    from ima_yolo.experiment.study import load_study
    from ima_yolo.experiment.tables import by_seed, difference_text, markdown_table
    from ima_yolo.files import write_json

    rows: list[list[str]] = []
    found: dict[str, Any] = {}
    every: list[dict[str, Any]] = []
    others = [arm for arm in ARMS if arm != "ima"]
    for folder in sorted(path.parent for path in (output / "studies").glob("*/study.json")):
        results = load_study(folder).complete_results()
        scores = {arm: by_seed(results, arm, "map50_95") for arm in ARMS}
        if not all(scores.values()):
            continue
        against = {other: paired(scores["ima"], scores[other]) for other in others}
        found[folder.name] = {"scores": scores, "gains": {other: gain.mean for other, gain in against.items() if gain}}
        every.append(against)
        means = [f"{fmean(scores[arm].values()):.1f}" for arm in ARMS]
        rows.append([folder.name, *means, *(difference_text(gain) for gain in against.values())])
    if len(every) > 1:
        of_arms = ["" for _ in ARMS]
        for name, mean in (("over seeds", averaged), ("over studies", over_comparisons)):
            means = [mean([gain for against in every if (gain := against[other])]) for other in others]
            rows.append([f"mean of {len(every)}, interval {name}", *of_arms, *map(difference_text, means)])
    heads = ["study", *ARMS, *(f"ima against {other}" for other in others)]
    table = markdown_table(heads, rows, right=range(1, 1 + len(ARMS)))
    write_json(output / "proof.json", found)
    (output / "proof.md").write_text(f"# Does the default win?\n\nmAP50-95 in points.\n\n{table}\n", encoding="utf-8")
    return table


if __name__ == "__main__":
    main()
