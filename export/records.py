"""A JSON file of records that is whole after each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

END = b"\n]"


class RecordFile:
    """A JSON array on the disk, to which records are added as they come.

    Nothing is kept in memory, since a camera may run for weeks; and whenever the process ends, killed or for want of
    room on the disk, the file is a whole array of what was added before.
    """

    def __init__(self, path: Path) -> None:
        """Begin an empty array.

        Raises:
            OSError: The file cannot be written.
        """
        self._file: FileIO = path.open("wb", buffering=0)
        self._end = self._put(b"[", 0)

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Add some records.

        Raises:
            OSError: They cannot be written; the file is left as it was before.
        """
        if not records:
            return
        comma = b"," if self._end > 1 else b""
        text = comma + b"\n" + ",\n".join(json.dumps(record, indent=1) for record in records).encode()
        try:
            self._end = self._put(text, self._end)
        except OSError:
            self._file.truncate(self._end)
            self._put(b"", self._end)
            raise

    def close(self) -> None:
        """Let the file go."""
        self._file.close()

    def _put(self, text: bytes, where: int) -> int:
        """Write a text and the end of the array, and return where the latter begins."""
        self._file.seek(where)
        rest = memoryview(text + END)
        while rest:
            rest = rest[self._file.write(rest) :]
        return where + len(text)
