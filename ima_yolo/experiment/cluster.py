"""Trainings on the machines and devices of a Ray cluster (the extra `ray`).

Every machine needs this package, and teacher, student and data under the paths that the study names, for example on a
shared drive. Results come back to the machine that runs the study; checkpoints stay where they were trained, unless the
study's folder is shared too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from filelock import FileLock

from ima_yolo.errors import IMAError, one_line
from ima_yolo.experiment.runner import Starter, log_path, start_process
from ima_yolo.experiment.setup import lay_out
from ima_yolo.experiment.study import Job, Study
from ima_yolo.files import read_json, write_json

Written = tuple[int, str, Any, Any]  # exit code, output, result and analysis; None for what was not written

ANSWERS_WITHIN = 10.0  # seconds that the head of a cluster has
LOCAL = "local"  # address that starts Ray on this machine alone


@dataclass
class RayTask:
    """A training somewhere on the cluster, with the face of `subprocess.Popen`."""

    ray: Any
    reference: Any
    study: Study
    job: Job
    code: int | None = None

    def poll(self) -> int | None:
        """Exit code, or None while it runs; fetches what the training wrote."""
        if self.code is None and self.ray.wait([self.reference], timeout=0)[0]:
            self.code = self._fetch()
        return self.code

    def terminate(self) -> None:
        """Ask it to end."""
        if self.code is None:
            self.ray.cancel(self.reference, force=True)

    def wait(self) -> None:
        """Return at once: a task that was cancelled by force has ended."""

    def _fetch(self) -> int:
        log = log_path(self.study, self.job)
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            code, text, result, analysis = self.ray.get(self.reference)
        except Exception as error:  # a machine that was lost, a worker that was killed
            log.write_text(one_line(error), encoding="utf-8")
            return 1
        log.write_text(text, encoding="utf-8")
        if not self.study.is_finished(self.job):  # on a machine that does not share the folder
            analysed = self.study.analysis_path(self.job.name)
            analysed.unlink(missing_ok=True)  # of an earlier training
            for path, content in ((analysed, analysis), (self.study.result_path(self.job), result)):
                if content is not None:
                    write_json(path, content)
        return int(code)


def starter(
    address: str, cpus: float = 1, gpus: float | None = None, task: Callable[[Study, Job, bool], Written] | None = None
) -> Starter:
    """Connect to a cluster and return what starts trainings on it.

    Args:
        address: "auto" for the running cluster that this machine belongs to, "local" for this machine alone, or the
            address of a head node.
        cpus: CPU cores that a training reserves.
        gpus: GPUs that a training reserves, for example 0.25 for four on one; by default one, or none where the cluster
            has none.
        task: What a machine does for a training; by default `train_here`.

    Raises:
        IMAError: If Ray is not installed or the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise IMAError("ray=: Ray is not installed; pip install '.[ray]' where IMA-YOLO was cloned") from None
    _check_answers(address)
    try:
        named: dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {"address": address}
        ray.init(**named, log_to_driver=False, ignore_reinit_error=True)
    except Exception as error:
        raise IMAError(f"ray={address}: {one_line(error)}") from error
    remote = ray.remote(num_cpus=cpus, num_gpus=_share(ray, gpus), max_calls=1, max_retries=0)(task or train_here)

    def start(study: Study, job: Job, device: str | None, resume: bool) -> RayTask:
        return RayTask(ray, remote.remote(study, job, resume), study, job)

    return start


def _check_answers(address: str) -> None:
    """Refuse a machine that does not answer, for which Ray would wait many minutes; other forms of address are Ray's.

    Raises:
        IMAError: Saying why.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN).close()
    except (OSError, OverflowError) as error:
        raise IMAError(f"ray={address}: no answer from there ({one_line(error)})") from error


def _share(ray: Any, gpus: float | None) -> float:
    """GPUs of a training."""
    return min(1.0, ray.cluster_resources().get("GPU", 0.0)) if gpus is None else gpus


def room(cpus: float = 1, gpus: float | None = None) -> int:
    """How many trainings the cluster that `starter` connected to has room for at a time, at least one.

    Args:
        cpus: CPU cores that a training reserves.
        gpus: As of `starter`.
    """
    import ray

    there, share = ray.cluster_resources(), _share(ray, gpus)
    rooms = [there.get(kind, 0.0) / each for kind, each in (("CPU", cpus), ("GPU", share)) if each > 0]
    return max(1, int(min(rooms, default=1)))


def train_here(study: Study, job: Job, resume: bool, start: Starter = start_process) -> Written:
    """Run one training on the machine that Ray chose.

    Args:
        study: Where it belongs; its folder is made on machines that do not share it.
        job: Arm and seed.
        resume: As in `run`.
        start: Starts the process.
    """
    lock = study.folder / "locks" / "study.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # several trainings may reach a machine at once
        if (study.folder / "study.json").is_file():  # which may be of before arms and seeds were added, or another's
            study.save(force=True)
        else:  # a machine that does not share the folder
            lay_out(study)
    process = start(study, job, None, resume)
    try:
        code = process.wait()
    finally:
        process.terminate()
    written = [
        read_json(path) if path.is_file() else None for path in (study.result_path(job), study.analysis_path(job.name))
    ]
    return code, log_path(study, job).read_text(encoding="utf-8", errors="replace"), written[0], written[1]
