"""Archives of a data set, looked through before they are unpacked."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ima_yolo.errors import IMAError
from ima_yolo.plain_yaml import MOST_BYTES, parse_plain

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".txz", ".tbz2", "")  # those that Ultralytics unpacks
MOST_TIMES = 100  # the size of the file that it may unpack to; images shrink little, labels and masks by some ten times
LEAST_BOUND = 2**30  # bytes that any archive may unpack to
Member = tuple[str, int, Callable[[], bytes]]  # name, size in bytes, gives as much of its content as YAML may have


def is_archive(file: Path) -> bool:
    """Whether Ultralytics would unpack a file."""
    return file.suffix.lower() in ARCHIVES and (zipfile.is_zipfile(file) or tarfile.is_tarfile(file))


def check_data_archive(file: Path, data: str, target: Path) -> None:
    """Refuse an archive that grows out of proportion or beyond the disk, or whose YAML is not one of plain values.

    Args:
        file: The archive.
        data: What the user called it, for the message.
        target: Folder that it is to be unpacked to; may be missing.

    Raises:
        IMAError: With the reason; nothing has been unpacked then.
    """
    bound, size = max(LEAST_BOUND, MOST_TIMES * file.stat().st_size), 0
    for name, claimed, read in _members(file):
        size += claimed
        if size > bound:
            raise IMAError(f"data={data}: refused, since it unpacks to more than {bound >> 20} MiB")
        if name.lower().endswith((".yaml", ".yml")):
            parse_plain(read(), f"data={data}: {name} in it")
    while not target.exists():
        target = target.parent
    if size > (free := shutil.disk_usage(target).free):
        raise IMAError(f"data={data}: unpacks to {size >> 20} MiB, and {target} has {free >> 20} MiB left")


def _members(file: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as zipped:
            for part in zipped.infolist():
                yield part.filename, part.file_size, partial(_head_of_zip, zipped, part)
        return
    with tarfile.open(file, "r:*") as tarred:
        for entry in tarred:
            yield entry.name, entry.size, partial(_head_of_tar, tarred, entry)


def _head_of_zip(zipped: zipfile.ZipFile, part: zipfile.ZipInfo) -> bytes:
    with zipped.open(part) as content:
        return content.read(MOST_BYTES + 1)


def _head_of_tar(tarred: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    content = tarred.extractfile(entry)
    return b"" if content is None else content.read(MOST_BYTES + 1)
