"""Data sets as Ultralytics reads them, without running what they carry."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ultralytics
from numpy.lib import format as npy
from numpy.typing import NDArray
from ultralytics.data.utils import IMG_FORMATS, check_det_dataset, find_dataset_yaml, img2label_paths
from ultralytics.utils.checks import check_file
from ultralytics.utils.patches import imread

from ima_yolo.errors import IMAError, one_line
from ima_yolo.plain_yaml import read_plain
from ima_yolo.trust import trusts

OWN = Path(ultralytics.__file__).parent
PARTS = ("train", "val", "test", "minival")
ARRAYS = {"dtype", "ndarray", "_reconstruct", "_frombuffer", "scalar", "encode", "PosixPath", "WindowsPath"}
HOMES = re.compile(r"numpy|numpy\._?core\.(multiarray|numeric)|_codecs|pathlib(\._local)?")
"""What a cache of labels is made of, and where that lies."""


def read_data_set(data: str, split: str = "") -> dict[str, Any]:
    """Read a data set's description, and fetch its images where it names an address for them.

    Ultralytics would also run a `download:` that is a script, and a pickle among the labels.

    Args:
        data: A YAML file, a folder or an archive with one, a name of Ultralytics' own, or an address.
        split: Part that must be there.

    Returns:
        The description with absolute paths.

    Raises:
        IMAError: If it is missing or wrong, or would run code.
    """
    described: Mapping[str, Any] = {}
    try:
        file = _file_of(data)
        if file.suffix in (".yaml", ".yml"):
            described = _check_description(file, data)
        runs = not _is_script(described) or OWN in file.resolve().parents or trusts()
        found: dict[str, Any] = check_det_dataset(str(file), autodownload=runs, split=split)
    except IMAError:
        raise
    except Exception as error:
        script = "; its download: is a script, which is not run" if _is_script(described) else ""
        raise IMAError(f"data={data}: {one_line(error)}{script}") from error
    for part in PARTS[:2]:
        for place in [found[part]] if isinstance(found[part], str) else found[part]:
            _check_cache(place)
    return found


def _check_description(file: Path, data: str) -> Mapping[str, Any]:
    """Refuse a description whose places are no texts; the rest is Ultralytics' to check."""
    described = read_plain(file, "data")
    if not isinstance(described, Mapping):
        raise IMAError(f"data={data}: expected lines of 'key: value'")
    for key in ("path", *PARTS, "download", "masks_dir"):
        value = described.get(key)
        for place in value if isinstance(value, list) else [value]:
            if not isinstance(place, (str, type(None))) or "\0" in (place or ""):
                raise IMAError(f"data={data}: {key}={value!r}: expected a path")
    return described


def _is_script(described: Mapping[str, Any]) -> bool:
    script = described.get("download")
    return bool(script) and not str(script).startswith(("https://", "http://"))


def _file_of(data: str) -> Path:
    """Find the file that is meant, as Ultralytics does; a name may lack its suffix."""
    if "://" not in data and not Path(data).exists() and Path(data).suffix not in (".yaml", ".yml"):
        named = (check_file(f"{data}{suffix}", hard=False) for suffix in (".yaml", ".yml"))
        data = next((name for name in named if name), data)
    file = Path(check_file(data))
    return Path(find_dataset_yaml(file)) if file.is_dir() else file


def _check_cache(place: str) -> None:
    """Refuse a cache of labels with code: Ultralytics unpickles the one beside the labels of the first image."""
    image = next(images_in(place), None)
    if image is None:
        return
    cache = Path(img2label_paths([str(image)])[0]).parent.with_suffix(".cache")
    if not cache.exists():
        return
    try:
        with cache.open("rb") as file:
            if npy.read_magic(file) != (1, 0):
                raise _Code("another form")
            npy.read_array_header_1_0(file)
            _Plain(file).load()
    except Exception as error:
        reason = f"carries code ({error})" if isinstance(error, _Code) else "is damaged"
        raise IMAError(f"{cache}: refused, since it {reason}; remove it, and it is made again") from None


class _Code(Exception):
    """A pickle names something beside arrays and paths."""


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in ARRAYS or not HOMES.fullmatch(module):
            raise _Code(f"{module}.{name}")
        return super().find_class(module, name)


def images_in(places: str | list[str]) -> Iterator[Path]:
    """Images of a part of a data set: folders, searched through, and text files that list paths.

    Args:
        places: What Ultralytics' resolved data has under `train` or `val`.
    """
    for place in [places] if isinstance(places, str) else places:
        path = Path(place)
        if path.is_file():
            lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
            yield from (path.parent / line if line.startswith("./") else Path(line) for line in lines if line)
        elif path.is_dir():
            yield from sorted(file for file in path.rglob("*.*") if file.suffix[1:].lower() in IMG_FORMATS)


def read_image(path: Path, channels: int) -> NDArray[Any] | None:
    """Read an image as Ultralytics reads those of a data set.

    Args:
        path: The file.
        channels: Of the data; of any other number than one (grey) or three (BGR) the file is taken as it is.

    Returns:
        (H, W, C) uint8; None where it cannot be read.
    """
    import cv2

    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    image: NDArray[Any] | None = imread(str(path), flags=flag)
    return image
