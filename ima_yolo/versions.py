"""With what something was measured: packages, and a digest of our own files that matter to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

DIGITS = 16  # hexadecimal digits of a digest that are kept


def versions(files: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    """Versions by package, and under "ima_yolo" a digest of our files.

    Args:
        files: Patterns below the folder of the package, such as "losses/*.py".
        packages: Names of distributions.
    """
    package = Path(__file__).resolve().parent
    digest = hashlib.sha256()
    for file in sorted({file for pattern in files for file in package.glob(pattern)}):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return {"ima_yolo": digest.hexdigest()[:DIGITS], **{name: version(name) for name in packages}}
