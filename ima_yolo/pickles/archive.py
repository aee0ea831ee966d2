"""The parts of a checkpoint's archive, as PyTorch and Python both find them."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from ima_yolo.errors import IMAError

BEGIN = b"PK\x03\x04"  # by which PyTorch tells an archive
HEAD = struct.Struct("<26xHH")  # of a part: how long its name and its extra field are


def is_archive(path: Path) -> bool:
    """Whether PyTorch takes a file for an archive."""
    with path.open("rb") as file:
        return file.read(len(BEGIN)) == BEGIN


def read_parts(path: Path) -> tuple[bytes, dict[str, int]]:
    """Read the pickle of an archive, and how many bytes each of its other parts has.

    Compressed and overlapping parts are refused: `torch.save` writes none, and they hide any size. So are those of
    which the two readers of such an archive would find different ones.

    Args:
        path: An archive.

    Returns:
        The pickle, and name -> bytes of all parts, without their common folder.

    Raises:
        IMAError: With the reason, without the file's name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error) as error:
        raise IMAError("the file is empty, truncated or not a checkpoint") from error
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in found):
        raise IMAError("refused, since its parts unpack to more than the file holds")
    if sum(part.file_size for part in found) > path.stat().st_size:
        raise IMAError("refused, since its parts unpack to more than the file holds")
    parts = {part.filename.partition("/")[2]: part for part in found}
    if comment or len({name.casefold() for name in parts}) < len(found):
        raise IMAError("refused, since its parts are not named as torch.save names them")
    reader: Any = torch._C.PyTorchFileReader(str(path))
    if sorted(reader.get_all_records()) != sorted(parts):
        raise IMAError("refused, since its parts are not named as torch.save names them")
    with path.open("rb") as file:
        for name, part in parts.items():
            if reader.get_record_offset(name) != _begin(file, part.header_offset):
                raise IMAError("refused, since its parts do not lie where it says")
    content: bytes = reader.get_record("data.pkl")
    return content, {name: part.file_size for name, part in parts.items()}


def _begin(file: IO[bytes], header: int) -> int:
    file.seek(header)
    names, extra = HEAD.unpack(file.read(HEAD.size))
    return header + HEAD.size + names + extra
