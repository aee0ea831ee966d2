"""Runs the open trainings of a study, several at a time, each in a process of its own."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from ima_yolo.errors import IMAError
from ima_yolo.experiment.study import Job, Study

POLL = 2.0  # seconds between two looks at the running processes
SAY = 60.0  # seconds between two lines of progress
LEAST_FREE = 500 * 2**20  # bytes: with less on the disk no further training is started
BUSY = 75  # exit code of `worker.main`


class Process(Protocol):
    """A training under way, as `subprocess.Popen` shows it."""

    def poll(self) -> int | None:
        """Exit code, or None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def wait(self) -> Any:
        """Return once it has ended."""


# The folder that the user is in is no place to import from: a file of theirs may be called code.py.
WORKER = """
import sys
count = int(sys.argv.pop(1))
sys.path[:] = sys.argv[1 : 1 + count]
del sys.argv[1 : 1 + count]
from ima_yolo.experiment.worker import main
sys.exit(main(sys.argv[1:]))
"""

Starter = Callable[[Study, Job, str | None, bool], Process]


@dataclass
class Running:
    """A training in progress."""

    job: Job
    process: Process
    device: str | None


def run(
    study: Study,
    slots: Sequence[str | None],
    say: Callable[[str], None],
    start: Starter | None = None,
    resume: bool = False,
    given_up: Collection[str] = (),
) -> list[Job]:
    """Run every training that has no result yet.

    A training that fails does not stop the others. On interruption the running ones are ended; the next call begins
    them again, or with `resume` goes on with them, and keeps what is finished.

    Args:
        study: What to run.
        slots: Devices, one for each training that may run at a time; None is Ultralytics' choice.
        say: Receives a line of progress now and then.
        start: Starts a training; by default as a process of this machine.
        resume: Go on from the last checkpoint of a training that was stopped.
        given_up: Names of trainings that are not to be run.

    Returns:
        The trainings that failed.

    Raises:
        IMAError: If the disk is full; the running trainings have ended then, and what is finished is kept.
    """
    waiting = [job for job in study.jobs() if not study.is_finished(job)]
    total = sum(1 for _ in study.jobs())
    done = total - len(waiting)
    waiting = [job for job in waiting if job.name not in given_up]
    say(f"{done} of {total} trainings are finished already" if done else f"{total} trainings")
    free, said = list(slots), time.monotonic()
    running: list[Running] = []
    failed: list[Job] = []
    with _ended_with_us(running) as told_to_stop:
        while running or (waiting and not _is_full(study.folder)):
            while waiting and free and not _is_full(study.folder):
                device, job = free.pop(0), waiting.pop(0)
                running.append(Running(job, (start or start_process)(study, job, device, resume), device))
            time.sleep(POLL)
            if told_to_stop.is_set():
                raise KeyboardInterrupt
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                free.append(one.device)
                failed += _finish(study, one, say)
                said = 0.0
            if running and time.monotonic() - said > SAY:
                say(_progress(study, running, len(waiting)))
                said = time.monotonic()
    if waiting:
        raise IMAError(
            f"{study.folder}: less than {LEAST_FREE // 2**20} MB are free on the disk, {len(waiting)} trainings were "
            f"not started; what is finished is kept, and the same command goes on once there is room"
        )
    return failed


@contextmanager
def _ended_with_us(running: list[Running]) -> Iterator[threading.Event]:
    """End the running trainings on every way out; yields what is set once this process is asked to terminate.

    The request is noted and obeyed between two steps: in the middle of one, a training that has just been started could
    be forgotten.
    """
    told = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        told.set()

    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if main else None
    try:
        yield told
    finally:
        for one in running:
            one.process.terminate()
        for one in running:
            one.process.wait()
        if main:
            signal.signal(signal.SIGTERM, before)


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < LEAST_FREE


def log_path(study: Study, job: Job) -> Path:
    """Where a training's output goes."""
    return study.folder / "logs" / f"{job.name}.log"


def start_process(study: Study, job: Job, device: str | None, resume: bool) -> subprocess.Popen[bytes]:
    """Start a training as a process of this machine."""
    path = log_path(study, job)
    path.parent.mkdir(parents=True, exist_ok=True)
    places = [place for place in sys.path if place and isinstance(place, str)]
    words = [sys.executable, "-c", WORKER, str(len(places)), *places, str(study.folder), job.arm.name, str(job.seed)]
    words += [f"--device={device}"] if device else []
    words += ["--resume"] if resume else []
    with path.open("ab") as log:  # another process may be at this training, and writing to it
        log.write(f"{job.name} begins\n".encode())
        log.flush()
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def _finish(study: Study, one: Running, say: Callable[[str], None]) -> list[Job]:
    code = one.process.poll()
    if study.is_finished(one.job):  # whatever it did after its result was written
        say(f"finished {one.job.name}")
        return []
    if code == BUSY:
        say(f"left out {one.job.name}: another process trains it")
        return []
    log = log_path(study, one.job)
    why = f"with code {code}: {_last_line(log)}" if code is None or code >= 0 else f"killed by {_signal(-code)}"
    say(f"FAILED {one.job.name} {why}; see {log}")
    return [one.job]


def _signal(number: int) -> str:
    name = signal.Signals(number).name if number in {*signal.Signals} else "signal"
    return f"{name} (signal {number}{'; often: out of memory' if number == 9 else ''})"


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return "no output"
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no output")


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
