"""What may be opened and written to: files, in folders whose search ends. A pipe is waited for, and links lead out."""

from __future__ import annotations

import csv
import glob
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ima_yolo.errors import SECRET, IMAError, one_line

MOST_FOLDERS = 100_000
BESIDE = {".cache", ".npy", ".yaml"}  # what Ultralytics writes beside images and labels, and what describes them
REASON = "expected a file: pipes and devices are not read"


def check_plain(path: str | Path, role: str = "") -> None:
    """Refuse what is neither a file nor a folder; what is not there, or out of reach, is left to others.

    Args:
        path: Links are followed.
        role: The key that named it with its "=", for the message.

    Raises:
        IMAError: With the path.
    """
    if _kind(path) not in (None, stat.S_IFREG, stat.S_IFDIR):
        raise IMAError(f"{role}{path}: {REASON}")


def check_addresses(options: Mapping[str, Any]) -> None:
    """Refuse addresses with a password in them, which Ultralytics prints and what a training leaves behind would hold.

    Raises:
        IMAError: Naming the key.
    """
    for key, value in options.items():
        if SECRET.search(str(value)):
            raise IMAError(
                f"{key}={value}: what stands before its @ would be kept in files; fetch it, and give the file"
            )


def check_entries(folder: str | Path, written: str | None = None) -> list[str]:
    """Refuse a folder that holds what is neither a file nor a folder, hidden or not; those below are not looked into.

    The types come with the names: a stat is done for links alone.

    Args:
        folder: May be missing, and then holds nothing, as one that may not be looked into.
        written: How names end that are written to there, such as ".npy"; no link of such a name may lead out.

    Returns:
        Its folders that are not hidden, with their paths.

    Raises:
        IMAError: With the first pipe, device or such link.
    """
    found = []
    for entry in _entries(folder):
        if written and entry.name.endswith(written) and entry.is_symlink():
            check_link(Path(entry.path), Path(folder).resolve())
        if _is_folder(entry) and not entry.name.startswith("."):
            found.append(entry.path)
    return found


def check_link(path: Path, own: Path) -> None:
    """Refuse a link out of a folder, be anything there or not.

    Args:
        path: The link.
        own: The folder, resolved.

    Raises:
        IMAError: With the link.
    """
    try:
        target = path.resolve()
    except (OSError, RuntimeError):  # which Python raises for one that leads to itself
        target = Path("/")
    if own not in (target, *target.parents):
        raise IMAError(f"{path}: a link out of its folder, through which would be written; remove it")


def check_search(folder: str | Path, written: str | None = None) -> None:
    """Do the same for all folders below too, and refuse links that lead back to one above, without end.

    Args:
        folder: As of `check_entries`.
        written: As of `check_entries`, in each of the folders.

    Raises:
        IMAError: With the link, pipe or device.
    """
    waiting, seen = [(str(folder), frozenset[str]())], 0
    while waiting:
        place, above = waiting.pop()
        real, seen = os.path.realpath(place), seen + 1
        if real in above or seen > MOST_FOLDERS:
            raise IMAError(f"{place}: a link that leads back to a folder it lies in, or one of too many folders")
        waiting += [(path, above | {real}) for path in check_entries(place, written)]


def check_tree(folder: Path, read: str = "", apart: str = "") -> None:
    """Refuse links out of a folder that is written to, and pipes and devices, in it and in all folders below.

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
            if path == own / apart or _is_of_a_logger(path.relative_to(own)):
                continue
            if path.is_symlink() and not (is_read and path.suffix not in BESIDE and not path.is_dir()):
                check_link(path, own)


def check_source(source: str) -> None:
    """Look at whatever Ultralytics opens where it predicts: a file, a folder, a pattern, or a list of such.

    Args:
        source: As the user gave it; an address or a number of a camera is none of these.

    Raises:
        IMAError: With what is neither a file nor a folder.
    """
    check_plain(source, "source=")
    if source.lower().endswith((".txt", ".csv", ".streams")) and _kind(source) == stat.S_IFREG:
        above = Path(source).parent
        for name in _listed(source):  # from here or, where there is no such thing, from the folder of the list
            _check_place(name)
            _check_place(str(above / name))
    else:
        _check_place(source)


def _is_of_a_logger(path: Path) -> bool:
    """Whether it is a link of Weights & Biases to a log in its cache, which each of its runs makes anew."""
    return "wandb" in path.parts and path.parts[-2:] == ("logs", "debug-core.log")


def _check_place(place: str) -> None:
    check_plain(place)
    if "**" in place:
        check_search(Path(place.partition("*")[0] + "x").parent)
    for found in glob.glob(place) if "*" in place and "**" not in place else [place]:
        check_plain(found)
        if _kind(found) == stat.S_IFDIR:
            check_entries(found)


def _listed(file: str) -> Iterator[str]:
    """Names in a list, one a line or, of a table, one a field."""
    try:
        with Path(file).open(encoding="utf-8-sig") as lines:
            rows = csv.reader(lines) if file.lower().endswith(".csv") else ([line] for line in lines)
            yield from (name.strip() for row in rows for name in row if name.strip())
    except (OSError, ValueError, csv.Error) as error:
        raise IMAError(f"source={file}: cannot be read ({one_line(error)})") from error


def _kind(path: str | Path) -> int | None:
    """Kind of what a path leads to, one of `stat.S_IF...`; None where nothing is there, or nothing can be known."""
    try:
        return stat.S_IFMT(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return None


def _entries(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:  # no right to look: nothing is found there
        yield from entries


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one.

    Raises:
        IMAError: If it is no file either; a link to what is not there may stay.
    """
    try:
        is_folder = entry.is_dir()
        is_plain = is_folder or entry.is_file() or (entry.is_symlink() and _kind(entry.path) is None)
    except OSError:  # a link to itself, for example: the others are looked at all the same
        return False
    if not is_plain:
        raise IMAError(f"{entry.path}: {REASON}")
    return is_folder
