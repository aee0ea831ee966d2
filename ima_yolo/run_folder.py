"""A folder that is written to once more, which somebody else may have sent: nothing goes through what lies in it."""

from __future__ import annotations

from pathlib import Path

from ima_yolo.checkpoint import FINISHING, STAGING
from ima_yolo.errors import IMAError
from ima_yolo.plain_files import check_tree

FILES = {".csv", ".jpg", ".png", ".pt", ".yaml"}  # what a training writes ends so
FOLDERS = ("weights", f"weights/{STAGING}", f"weights/{FINISHING}", "labels")  # those that a training writes to


def check_run(folder: Path) -> None:
    """Refuse links out of a run's folder, pipes and devices in it, and files in place of its folders or the reverse.

    Links at any depth: pictures, labels and crops are written to folders that the settings choose, under names that the
    data chooses, and settings and data come with the folder.

    Args:
        folder: Of the run; may itself be a link, which the user made.

    Raises:
        IMAError: With the path.
    """
    for name in FOLDERS:
        place = folder / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise IMAError(f"{place}: expected a folder; remove it")
    check_tree(folder)
    for place in (folder, *(folder / name for name in FOLDERS)):
        for path in place.iterdir() if place.is_dir() else ():
            if path.suffix in FILES and path.is_dir():
                raise IMAError(f"{path}: expected a file; remove it")
