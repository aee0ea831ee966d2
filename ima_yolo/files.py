"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ima_yolo.errors import IMAError


def write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all, also where the disk is full or the power fails; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a file that `write_json` wrote.

    Raises:
        IMAError: If it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IMAError(f"{path}: cannot be read ({error}); remove it, and it is made again") from error
