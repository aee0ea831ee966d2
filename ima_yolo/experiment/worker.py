"""One training of a study, in a process of its own: `python -m ima_yolo.experiment.worker FOLDER ARM SEED`."""

from __future__ import annotations

import csv
import os
import shutil
import sys
import time
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")

from ultralytics.models.yolo.detect import DetectionTrainer

from ima_yolo.experiment.study import Job, Study, code_version, load_study
from ima_yolo.files import write_json
from ima_yolo.teachers.module import weights_digest
from ima_yolo.trainer import IMATrainer


class _Recording:
    """Notes what a training was shown, so that a report can say that all arms saw the same."""

    data_digest = 0
    initial_digest = ""

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        self.data_digest = zlib.crc32(batch["img"].numpy().tobytes(), self.data_digest)
        return super().preprocess_batch(batch)  # type: ignore[misc]

    def set_model_attributes(self) -> None:
        self.initial_digest = weights_digest(self.model)  # type: ignore[attr-defined]
        super().set_model_attributes()  # type: ignore[misc]


class PlainTrainer(_Recording, DetectionTrainer):
    """Ultralytics' own trainer, with or without its own distillation."""


class DistillingTrainer(_Recording, IMATrainer):
    """Ours."""


def run_job(study: Study, job: Job, device: str | None = None) -> dict[str, Any]:
    """Train one arm with one seed, write its result and return it.

    What an interrupted attempt left is removed first: a training that stopped in the middle is begun again, so that
    every result comes from one uninterrupted run.

    Args:
        study: Where the training belongs.
        job: Arm and seed.
        device: As in `yolo train`.
    """
    folder = study.run_folder(job)
    shutil.rmtree(folder, ignore_errors=True)
    options = job.arm.options(study.common, study.teacher)
    options.update(seed=job.seed, project=str(folder.parent), name=folder.name, exist_ok=True)
    if device is not None:
        options["device"] = device
    start = time.time()
    trainer = (DistillingTrainer if job.arm.kind == "ima" else PlainTrainer)(overrides=options)
    trainer.train()
    result = _result(trainer, job, time.time() - start)
    write_json(study.result_path(job), result)
    return result


def _result(trainer: Any, job: Job, seconds: float) -> dict[str, Any]:
    metrics = trainer.validator.metrics  # of best.pt, from the final validation
    with Path(trainer.csv).open(encoding="utf-8") as file:
        curves = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return {
        "arm": job.arm.name,
        "seed": job.seed,
        "settings": job.arm.settings,
        "map50_95": float(metrics.box.map),
        "map50": float(metrics.box.map50),
        "map75": float(metrics.box.map75),
        "last_map50_95": curves[-1].get("metrics/mAP50-95(B)"),
        "map50_95_of_class": {metrics.names[index]: float(metrics.box.maps[index]) for index in metrics.names},
        "epochs": len(curves),
        "seconds": round(seconds, 1),
        "weights": str(trainer.best),
        "data_digest": f"{trainer.data_digest:08x}",
        "initial_digest": trainer.initial_digest,
        "code": code_version(),
        "curves": curves,
    }


def main(words: list[str]) -> int:
    """Run the job that the words name: folder, arm, seed and, if given, the device."""
    study = load_study(Path(words[0]))
    arm = next(arm for arm in study.arms if arm.name == words[1])
    run_job(study, Job(arm, int(words[2])), words[3] if len(words) > 3 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
