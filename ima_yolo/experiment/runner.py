"""Runs the open trainings of a study, several at a time, each in a process of its own."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ima_yolo.experiment.study import Job, Study

POLL = 2.0  # seconds between two looks at the running processes
SAY = 60.0  # seconds between two lines of progress


@dataclass
class Running:
    """A training in progress."""

    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    device: str | None


def run(study: Study, slots: Sequence[str | None], say: Callable[[str], None]) -> list[Job]:
    """Run every training that has no result yet.

    A training that fails does not stop the others. On interruption the running ones are ended; the next call begins
    them again and keeps what is finished.

    Args:
        study: What to run.
        slots: Devices, one for each training that may run at a time; None is Ultralytics' choice.
        say: Receives a line of progress now and then.

    Returns:
        The trainings that failed.
    """
    waiting = [job for job in study.jobs() if not study.is_finished(job)]
    total = sum(1 for _ in study.jobs())
    say(
        f"{total - len(waiting)} of {total} trainings are finished already"
        if len(waiting) < total
        else f"{total} trainings"
    )
    free, running, failed, said = list(slots), [], [], 0.0
    try:
        while waiting or running:
            while waiting and free:
                running.append(_start(study, waiting.pop(0), free.pop(0)))
            time.sleep(POLL)
            for done in [one for one in running if one.process.poll() is not None]:
                running.remove(done)
                free.append(done.device)
                failed += _finish(study, done, say)
                said = 0.0
            if running and time.monotonic() - said > SAY:
                say(_progress(study, running, len(waiting)))
                said = time.monotonic()
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
            one.log.close()
    return failed


def _start(study: Study, job: Job, device: str | None) -> Running:
    path = study.folder / "logs" / f"{job.name}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    log = path.open("wb")
    words = [sys.executable, "-m", "ima_yolo.experiment.worker", str(study.folder), job.arm.name, str(job.seed)]
    words += [device] if device else []
    process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    return Running(job, process, log, device)


def _finish(study: Study, done: Running, say: Callable[[str], None]) -> list[Job]:
    done.log.close()
    if done.process.returncode == 0 and study.is_finished(done.job):
        say(f"finished {done.job.name}")
        return []
    say(f"FAILED {done.job.name} with code {done.process.returncode}; see {done.log.name}")
    return [done.job]


def _progress(study: Study, running: Sequence[Running], waiting: int) -> str:
    epochs = study.common.get("epochs", 100)
    parts = [f"{one.job.name} epoch {_epochs_done(study.run_folder(one.job))}/{epochs}" for one in running]
    return f"running {', '.join(parts)}; {waiting} waiting"


def _epochs_done(folder: Path) -> int:
    try:
        with (folder / "results.csv").open(encoding="utf-8") as file:
            return sum(1 for _ in csv.DictReader(file))
    except OSError:
        return 0
