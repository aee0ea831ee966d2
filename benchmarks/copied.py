"""A data set that may be written to: Ultralytics keeps a cache beside the labels, and the source may be read-only."""

from __future__ import annotations

import shutil
from pathlib import Path


def copied(source: Path, output: Path) -> Path:
    """Copy a data set into a folder, unless it is there already, and return its data.yaml."""
    target = output / "data"
    if not target.exists():
        shutil.copytree(source, target, copy_function=shutil.copyfile)
        for path in (target, *target.rglob("*")):
            path.chmod(0o755)
    return target / "data.yaml"
