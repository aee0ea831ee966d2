"""A folder that is written to once more, which somebody else may have sent: nothing goes through what lies in it."""

from __future__ import annotations

import os
from pathlib import Path

from ima_yolo.checkpoint import FINISHING, STAGING
from ima_yolo.errors import IMAError
from ima_yolo.plain_files import check_entries

FILES = {".csv", ".jpg", ".png", ".pt", ".yaml"}  # what a training writes ends so
BESIDE = {".cache", ".npy", ".yaml"}  # what Ultralytics writes beside images and labels, and what describes them
FOLDERS = ("weights", f"weights/{STAGING}", f"weights/{FINISHING}", "labels")  # those that a training writes to


def check_run(folder: Path) -> None:
    """Refuse links out of a run's folder, pipes and devices in it, and files in place of its folders or the reverse.

    A training writes records, plots and checkpoints under names that are known before, and reads some of them.

    Args:
        folder: Of the run; may itself be a link, which the user made.

    Raises:
        IMAError: With the path.
    """
    for name in FOLDERS:
        place = folder / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise IMAError(f"{place}: expected a folder; remove it")
    own = folder.resolve()
    for place in (folder, *(folder / name for name in FOLDERS)):
        check_entries(place)
        for path in place.iterdir() if place.is_dir() else ():
            if path.suffix in FILES and path.is_dir():
                raise IMAError(f"{path}: expected a file; remove it")
            if path.is_symlink() and not path.is_dir():
                _check_link(path, own)


def check_tree(folder: Path, read: str = "", apart: str = "") -> None:
    """Refuse links out of a folder, and pipes and devices in it and in all folders below, those of a study's trainings.

    Args:
        folder: May be missing, and may itself be a link, which the user made.
        read: A folder in it where links to images and labels may lead out, through which nothing is written.
        apart: A link in it that may lead anywhere, since nothing is done there.

    Raises:
        IMAError: With the path.
    """
    own = folder.resolve()
    for place, folders, files in os.walk(own):
        check_entries(place)
        is_read = bool(read) and own / read in (Path(place), *Path(place).parents)
        for path in (Path(place, name) for name in (*folders, *files)):
            if path == own / apart:
                continue
            if path.is_symlink() and not (is_read and path.suffix not in BESIDE and not path.is_dir()):
                _check_link(path, own)


def _check_link(path: Path, own: Path) -> None:
    if own not in _target(path).parents:
        raise IMAError(f"{path}: a link out of its folder, through which would be written; remove it")


def _target(link: Path) -> Path:
    """Where a link leads; the root where that has no end."""
    try:
        return link.resolve()
    except (OSError, RuntimeError):  # which Python raises for one that leads to itself
        return Path("/")
