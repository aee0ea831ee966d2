"""What a checkpoint carries for us: plain values and tensors under one key of an ordinary Ultralytics checkpoint."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ima_yolo.config import Settings
from ima_yolo.errors import IMAError
from ima_yolo.files import replacing

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer

KEY = "ima"
FORMAT = 1
STAGING, FINISHING = ".saving", ".finishing"  # folders beside the checkpoints
_CARRIED: ContextVar[dict[str, Any] | None] = ContextVar("ima_carried", default=None)
_USES: list[Any] = []  # what torch.save was at each entry that has not ended: the first is torch's own
_LOCK = threading.Lock()


def pack(
    settings: Settings, teacher_digest: str, distiller: Mapping[str, Any] | None, is_trained: bool = False
) -> dict[str, Any]:
    """Build the value that is stored under `KEY`.

    Args:
        settings: What the run was started with.
        teacher_digest: SHA-256 of the teacher's weights.
        distiller: State to resume from, or None in a finished checkpoint.
        is_trained: Whether no epoch follows, so that only the final evaluation is left.
    """
    packed = {
        "format": FORMAT,
        "settings": settings.model_dump(mode="json", exclude={"ima_trust"}),
        "teacher_digest": teacher_digest,
    }
    return packed if distiller is None else {**packed, "distiller": dict(distiller), "is_trained": is_trained}


DAMAGED = "what it says of its training is damaged; start a new one"


def unpack(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return what `pack` stored.

    Args:
        checkpoint: An Ultralytics checkpoint.
        path: Its file, for the message.

    Raises:
        IMAError: If there is nothing to resume a distillation from.
    """
    packed = checkpoint.get(KEY)
    if not isinstance(packed, Mapping):
        raise IMAError(f"{path}: not a checkpoint of a distillation; resume it with `yolo train resume`")
    if packed.get("format") != FORMAT:
        raise IMAError(f"{path}: written in format {packed.get('format')}, this version reads format {FORMAT}")
    epoch, settings, fitness = checkpoint.get("epoch", -1), packed.get("settings"), checkpoint.get("best_fitness")
    known = isinstance(settings, Mapping) and all(isinstance(key, str) for key in settings)
    if type(epoch) is not int or not known or not isinstance(fitness or 0.0, (int, float)):
        raise IMAError(f"{path}: {DAMAGED}")
    if "distiller" not in packed or epoch < 0:
        raise IMAError(f"{path}: this training is finished, nothing to resume; start a new one with model={path}")
    return dict(packed)


def is_trained(checkpoint: Mapping[str, Any]) -> bool:
    """Whether a checkpoint was the last of its training, at its last epoch or where it stopped early."""
    packed = checkpoint.get(KEY)
    return isinstance(packed, Mapping) and bool(packed.get("is_trained", False))


def set_apart(last: Path) -> Path:
    """Copy a checkpoint aside, where it can be finished while the run can still be resumed from the original.

    Args:
        last: The checkpoint; may be missing.

    Returns:
        The copy, of the same name in a folder beside it, on the same file system.
    """
    folder = last.parent / FINISHING
    for left in (FINISHING, STAGING):  # of a run that was killed
        shutil.rmtree(last.parent / left, ignore_errors=True)
    if last.exists():
        folder.mkdir()
        shutil.copyfile(last, folder / last.name)
    return folder / last.name


def put_back(last: Path) -> None:
    """Replace a checkpoint by what became of the copy that `set_apart` made, if there is one."""
    folder = last.parent / FINISHING
    if (folder / last.name).exists():
        os.replace(folder / last.name, last)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Offer an empty folder beside the checkpoints; on success, what it holds replaces them one by one.

    Each file appears complete or not at all, whatever happens to the process. `last.pt` comes last, so that a run
    that resumes from an older `last.pt` meets no newer one.

    Args:
        folder: Where the checkpoints belong.

    Yields:
        The folder to write to, on the same file system.
    """
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        for file in sorted(staging.iterdir(), key=lambda file: file.name == "last.pt"):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def saving_whole(trainer: BaseTrainer) -> Iterator[Path]:
    """Make a trainer's `save_model` write to an empty folder meanwhile; on success, its files take their places.

    Ultralytics writes over `last.pt`, and a process that is killed in the middle of that leaves nothing to go on from.

    Args:
        trainer: Whose checkpoints are saved.

    Yields:
        The folder, on the same file system.
    """
    places = trainer.wdir, trainer.last, trainer.best
    with _staged(trainer.wdir) as staging:
        trainer.wdir, trainer.last, trainer.best = staging, staging / trainer.last.name, staging / trainer.best.name
        try:
            yield staging
        finally:
            trainer.wdir, trainer.last, trainer.best = places


@contextmanager
def carrying(packed: Mapping[str, Any]) -> Iterator[None]:
    """Make the checkpoints that Ultralytics saves meanwhile carry `packed` under `KEY`, and appear whole or not at all.

    Ultralytics offers no place for more content; reading a file back and saving it again would triple the time that a
    checkpoint takes.
    """
    token = _CARRIED.set(dict(packed))
    with _LOCK:
        _USES.append(torch.save)
        torch.save = cast(Any, _save)
    try:
        yield
    finally:
        _CARRIED.reset(token)
        with _LOCK:
            plain = _USES.pop()
            if not _USES:
                torch.save = plain


def _save(content: Any, target: Any, *args: Any, **kwargs: Any) -> None:
    """Save as torch does, with what this thread's training carries, and whole; as torch does in any other thread."""
    plain: Any = _USES[0] if _USES else torch.save
    packed = _CARRIED.get()
    if packed is None:
        plain(content, target, *args, **kwargs)
        return
    if isinstance(content, dict) and "train_args" in content:
        content = {**content, KEY: packed}
    whole = replacing(Path(target)) if isinstance(target, (str, Path)) else nullcontext(target)
    with whole as partial:
        plain(content, partial, *args, **kwargs)


def slim(file: Path) -> None:
    """Take out of a checkpoint what only an exact resume needs; one of each epoch is kept for long."""
    content = torch.load(file, map_location="cpu", weights_only=False)
    content[KEY].pop("exact", None)
    with replacing(file) as partial:
        torch.save(content, partial)
