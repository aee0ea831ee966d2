"""One training of a study, in a process of its own that the runner starts."""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")

import torch
from filelock import FileLock, Timeout
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import torch_safe_load
from ultralytics.utils import LOGGER

from ima_yolo.checkpoint import saving_whole
from ima_yolo.config import Settings
from ima_yolo.errors import IMAError
from ima_yolo.experiment.identity import code_version
from ima_yolo.experiment.report.measured import analyse, attempt
from ima_yolo.experiment.study import Job, Study, load_study
from ima_yolo.files import read_json, write_json
from ima_yolo.host import unhurried_nms
from ima_yolo.teachers import Teacher
from ima_yolo.teachers.module import weights_digest
from ima_yolo.trainer import IMATrainer

BUSY = 75  # exit code where another process trains the same


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
    """Ultralytics' own trainer, with or without its own distillation, and with checkpoints that are whole."""

    def save_model(self) -> bool:
        """Write each checkpoint whole or not at all."""
        with saving_whole(self):
            return bool(super().save_model())


class DistillingTrainer(_Recording, IMATrainer):
    """Ours."""


def run_job(study: Study, job: Job, device: str | None = None, resume: bool = False) -> dict[str, Any]:
    """Train one arm with one seed, write its result and return it.

    A training that stopped in the middle is begun again, so that every result comes from one uninterrupted run; with
    `resume` it goes on from its last checkpoint, where that can be read, and its result says so. Ultralytics resumes a
    student from its averaged half-precision weights: such a result is not bit for bit that of an unbroken run.

    Args:
        study: Where the training belongs.
        job: Arm and seed.
        device: As in `yolo train`.
        resume: Go on from the last checkpoint instead of beginning again.
    """
    folder = study.run_folder(job)
    stops = _stops(folder, job) if resume else None
    if stops is None:
        shutil.rmtree(folder, ignore_errors=True)
    options = _options(study, job, resumed=stops is not None)
    if device is not None:
        options["device"] = device
    if stops is not None:
        write_json(folder / "resumed.json", stops)
    study.analysis_path(job.name).unlink(missing_ok=True)  # of a training whose result was removed
    start = time.time()
    trainer = (DistillingTrainer if job.arm.kind == "ima" else PlainTrainer)(overrides=options)
    trainer.train()
    result = {**_result(trainer, job, time.time() - start, stops or []), "shared": study.shared_digest(job.arm)}
    trainer.last.unlink(missing_ok=True)  # makes room: a result that does not fit on the disk costs the training
    write_json(study.result_path(job), result)
    return result


def _options(study: Study, job: Job, resumed: bool) -> dict[str, Any]:
    places = dict(study.places)
    if not {"teacher", "model", "data"} <= places.keys():
        raise IMAError(f"{study.folder} came from another machine; give teacher=, student= and data= anew to go on")
    places["data"] = str(study.data)
    teacher, folder = places.pop("teacher"), study.run_folder(job)
    if resumed:
        named = {"ima": {"teacher": teacher}, "builtin": {"distill_model": teacher}}.get(job.arm.kind, {})
        last, places = folder / "weights" / "last.pt", {**places, "model": str(folder / "weights" / "last.pt")}
        return {**places, **named, "resume": str(last), "save_dir": str(folder)}
    options = job.arm.options({**study.common, **places}, teacher)
    return {**options, "seed": job.seed, "project": str(folder.parent), "name": folder.name, "exist_ok": True}


def _stops(folder: Path, job: Job) -> list[int] | None:
    """Epochs after which a training stopped and from which it can go on; None where it has to begin again."""
    try:
        last = torch_safe_load(str(folder / "weights" / "last.pt"), safe_only=True)[0]
        epoch, epochs = last.get("epoch", -1), last["train_args"]["epochs"]
    except Exception:  # absent, or damaged, which shows in many ways
        return None
    if epoch < 0:  # stripped at the end of a training whose result was not written any more
        return None
    if epoch + 1 >= epochs and job.arm.kind != "ima":  # ours validates what is left, Ultralytics resumes no such run
        return None
    earlier = folder / "resumed.json"
    return [*(read_json(earlier) if earlier.is_file() else []), epoch + 1]


def _result(trainer: Any, job: Job, seconds: float, stops: Sequence[int]) -> dict[str, Any]:
    metrics = trainer.validator.metrics  # of best.pt, from the final validation
    with Path(trainer.csv).open(encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    curves = list({row["epoch"]: row for row in rows}.values())  # an epoch that was cut short is there twice
    before = sum(row["time"] for row in curves if row["epoch"] in stops)  # each process counts from its own start
    return {
        "arm": job.arm.name,
        "seed": job.seed,
        "settings": job.arm.settings,
        "in_force": _in_force(trainer.in_force, trainer.teachers) if job.arm.kind == "ima" else {},
        "map50_95": float(metrics.box.map),
        "map50": float(metrics.box.map50),
        "map75": float(metrics.box.map75),
        "last_map50_95": curves[-1].get("metrics/mAP50-95(B)"),
        "map50_95_of_class": {metrics.names[index]: float(metrics.box.maps[index]) for index in metrics.names},
        "epochs": len(curves),
        "seconds": round(before + seconds, 1),
        "device": _device_name(trainer.device),
        "resumed": list(stops),
        "data_digest": "" if stops else f"{trainer.data_digest:08x}",
        "initial_digest": "" if stops else trainer.initial_digest,
        "code": code_version(),
        "curves": curves,
    }


def _in_force(settings: Settings, teachers: Sequence[Teacher]) -> dict[str, Any]:
    """Our settings as the training had them, with what was left to us chosen."""
    ran = dict.fromkeys(getattr(teacher, "runtime", "torch") for teacher in teachers)
    made = {"ima_teacher_runtime": ",".join(ran)} if ran else {}
    made |= {"ima_generator": settings.restore} if settings.ima_loss == "ima" else {}
    return {**settings.model_dump(mode="json", exclude={"teacher", "ima_trust"}), **made}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def main(words: Sequence[str]) -> int:
    """Run the job that the words name, unless another process is at it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("arm")
    parser.add_argument("seed", type=int)
    parser.add_argument("--device")
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args(words)
    study = load_study(given.folder)
    job = next((job for job in study.jobs() if (job.arm.name, job.seed) == (given.arm, given.seed)), None)
    if job is None:
        print(f"ima-yolo: {study.folder} holds no {given.arm}-seed{given.seed}", file=sys.stderr)  # noqa: T201
        return 2
    lock = study.folder / "locks" / f"{job.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0), unhurried_nms():
            if not study.is_finished(job):
                run_job(study, job, given.device, given.resume)
            weights = study.weights(job)
            attempt("its details", lambda: analyse(study, job.name, weights, given.device), LOGGER.warning)
    except Timeout:
        return BUSY
    except IMAError as error:
        print(f"ima-yolo: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0
