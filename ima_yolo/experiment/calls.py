"""Several calls may train one study together, but all with its arms and seeds: trainings look themselves up there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from ima_yolo.errors import IMAError
from ima_yolo.experiment.study import Study
from ima_yolo.files import read_json, write_json


@contextmanager
def claimed(study: Study, grows: bool = False) -> Iterator[None]:
    """Hold a study's folder for a call with these arms and seeds, from before the study is written until it has ended.

    Args:
        study: What the call will train.
        grows: Whether it will add arms on its way, so that nobody else may be at work.

    Raises:
        IMAError: While another call trains there with other arms or seeds.
    """
    folder = study.folder / "locks" / "calls"
    folder.mkdir(parents=True, exist_ok=True)
    arms = sorted(json.dumps([arm.name, arm.kind, arm.settings], sort_keys=True) for arm in study.arms)
    wanted = None if grows else {"arms": arms, "seeds": sorted(study.seeds)}
    own = folder / f"{uuid4().hex}.lock"
    lock = FileLock(own)
    with FileLock(folder.parent / "calls.lock"):  # two that look at once would both find nobody
        if any(wanted is None or other != wanted for other in _at_work(folder)):
            raise IMAError(
                f"{study.folder}: another call is training there, with other arms or seeds; "
                "wait until it has ended, or choose another name="
            )
        write_json(own.with_suffix(".json"), wanted)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
        _forget(own)


def _at_work(folder: Path) -> Iterator[Any]:
    """What each call that is at work has told of itself; what calls that were killed have left is removed."""
    for path in folder.glob("*.lock"):
        try:
            with FileLock(path, timeout=0):
                pass
        except Timeout:
            yield read_json(path.with_suffix(".json"))
        else:
            _forget(path)


def _forget(path: Path) -> None:
    for left in (path, path.with_suffix(".json")):
        left.unlink(missing_ok=True)
