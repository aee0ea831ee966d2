"""Data sets as Ultralytics reads them, without running what they carry."""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ultralytics
from numpy.lib import format as npy
from numpy.typing import NDArray
from ultralytics.data import dataset
from ultralytics.data.utils import (
    IMG_FORMATS,
    check_det_dataset,
    convert_ndjson_to_yolo_if_needed,
    find_dataset_yaml,
    img2label_paths,
    load_dataset_cache_file,
)
from ultralytics.utils import DATASETS_DIR, clean_url
from ultralytics.utils.checks import check_file
from ultralytics.utils.downloads import safe_download
from ultralytics.utils.patches import imread

from ima_yolo.data_archive import ARCHIVES, check_data_archive, is_archive
from ima_yolo.errors import IMAError, one_line
from ima_yolo.pickles.check import check_cache
from ima_yolo.plain_files import check_entries, check_link, check_plain, check_search
from ima_yolo.plain_yaml import MOST_BYTES, read_plain
from ima_yolo.trust import MOST_BANDS, trusts

OWN = Path(ultralytics.__file__).parent
PARTS = ("train", "val", "test", "minival")
SUFFIXES = (".yaml", ".yml")
ARRAYS = ".npy"  # of images, which Ultralytics keeps beside them with cache=disk, and refreshes whatever the cache
MOST_CLASSES = 20_000  # a matrix of which class is taken for which then holds 3 GB
MOST_POINTS = 2_000
MOST_SEARCHED = 2_000  # folders below one that is given in place of a YAML file


def read_data_set(data: str, split: str = "", fetch: bool = True) -> dict[str, Any]:
    """Read a data set's description, and fetch its images where it names an address for them.

    Ultralytics would also run a `download:` that is a script, and a pickle among the labels.

    Args:
        data: A YAML file, a folder or an archive with one, a name of Ultralytics' own, or an address.
        split: Part that must be there.
        fetch: Whether images that are not here may be fetched, or what fetches them run.

    Returns:
        The description with absolute paths.

    Raises:
        IMAError: If it is missing or wrong, or would run code.
    """
    described: Mapping[str, Any] = {}
    runs = False
    try:
        file = _file_of(data)
        root = _unpacked(file, data) if is_archive(file) else None
        if root or file.suffix.lower() in SUFFIXES:
            described = _check_description(find_dataset_yaml(root) if root and root.is_dir() else root or file, data)
        runs = not _is_script(described) or OWN in file.resolve().parents or trusts()
        found: dict[str, Any] = check_det_dataset(str(file), autodownload=runs and (fetch or trusts()), split=split)
        if root:
            _check_inside(found, Path(found["path"]), data)
        _check_folders(found, split)
    except IMAError:
        raise
    except Exception as error:
        script = "; its download: is a script, which is not run" if _is_script(described) and not runs else ""
        asks = "" if fetch else f"; a checkpoint has nothing fetched by itself: if they are yours, add data={data}"
        raise IMAError(f"data={data}: {one_line(error)}{script or asks}") from error
    return found


def converted(data: str, fraction: Any, split: str) -> str:
    """Convert an .ndjson file or a data set of Ultralytics' platform (ul://...) as Ultralytics does when it trains.

    Args:
        data: As the user gave it.
        fraction: The share of the images that is asked for, as in `yolo train`.
        split: The part that the training validates on.

    Returns:
        The YAML file that was made, or `data` where there is nothing to convert.

    Raises:
        IMAError: If it cannot be converted.
    """
    if is_converted(data) and Path(data).is_file():
        _check_numbering(Path(data))
    try:
        return str(convert_ndjson_to_yolo_if_needed(data, fraction, split=split))
    except Exception as error:
        raise IMAError(f"data={data}: cannot be converted ({one_line(error)})") from error


def is_converted(data: str) -> bool:
    """Whether a data set lists its images, and where to fetch them, in a file that is converted before it is used."""
    return clean_url(data).lower().endswith(".ndjson")  # which takes codes and questions for what they mean


def _check_numbering(file: Path) -> None:
    """Refuse numbers of classes for which lists of any length would be made; the rest is Ultralytics' to check."""
    with file.open("rb") as lines:
        head = next((line for line in iter(lambda: lines.readline(MOST_BYTES), b"") if line.strip()), b"")
    if len(head) >= MOST_BYTES:
        raise IMAError(f"data={file}: what it says of itself is longer than {MOST_BYTES >> 20} MiB")
    try:
        names = json.loads(head)["class_names"]
        numbers = [int(number) for number in names]
    except (LookupError, TypeError, ValueError, RecursionError):
        return
    if max(numbers, default=0) >= MOST_CLASSES:
        raise IMAError(f"data={file}: has a class of number {max(numbers)}; there may be {MOST_CLASSES}")


def _unpacked(file: Path, data: str) -> Path:
    """Unpack an archive as Ultralytics does, once it has been looked through; return its folder, or its only file."""
    check_data_archive(file, data, DATASETS_DIR)
    return Path(safe_download(file, dir=DATASETS_DIR, unzip=True, delete=False))


def _check_inside(found: Mapping[str, Any], root: Path, data: str) -> None:
    """Refuse an archive that names places outside of it: caches and mended pictures would be written there."""
    for part in PARTS:
        places = found.get(part) or []
        for place in [places] if isinstance(places, str) else places:
            for path in (Path(place), *images_in(place)):
                if root.resolve() not in path.resolve().parents and path.resolve() != root.resolve():
                    raise IMAError(f"data={data}: refused, since its '{part}' names {path}, outside of the archive")


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
    _check_numbers(described, data)
    return described


def _check_numbers(described: Mapping[str, Any], data: str) -> None:
    """Refuse numbers for which lists and tables of any size would be made."""
    names, points = described.get("names"), described.get("kpt_shape")
    asked = (described.get("nc"), len(names) if isinstance(names, (list, dict)) else 0)
    if (count := max(map(_number, asked))) > MOST_CLASSES:
        raise IMAError(f"data={data}: asks for {count:g} classes; there may be {MOST_CLASSES}")
    if (count := math.prod(map(_number, points)) if isinstance(points, list) else 0) > MOST_POINTS:
        raise IMAError(f"data={data}: kpt_shape asks for {count:g} numbers of keypoints; there may be {MOST_POINTS}")
    if (count := _number(described.get("channels"))) > MOST_BANDS:
        raise IMAError(f"data={data}: asks for images of {count:g} channels; there may be {MOST_BANDS}")


def _number(value: Any) -> float:
    """A number that may be written as a text, which Ultralytics reads; 0 for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def _is_script(described: Mapping[str, Any]) -> bool:
    script = described.get("download")
    return bool(script) and not str(script).startswith(("https://", "http://"))


def _file_of(data: str) -> Path:
    """Find the file that is meant, as Ultralytics does; a name may lack its suffix."""
    if "://" not in data and not Path(data).exists() and Path(data).suffix not in SUFFIXES:
        named = (check_file(f"{data}{suffix}", hard=False) for suffix in SUFFIXES)
        data = next((name for name in named if name), data)
    file = Path(check_file(data))
    check_plain(file, "data=")
    if not file.is_dir():
        return file
    _check_breadth(file, data)
    return Path(find_dataset_yaml(file))


def _check_breadth(folder: Path, data: str) -> None:
    """Refuse a folder in which the search for a YAML file would take long: a whole disk, for example."""
    if next(folder.glob(f"*{SUFFIXES[0]}"), None) is None:  # or none below is looked for
        for count, _ in enumerate(os.walk(folder)):
            if count > MOST_SEARCHED:
                raise IMAError(f"data={data}: no {SUFFIXES[0]} file, and too many folders to search; name the file")


def class_folder(data: str) -> Path | None:
    """The folder of a classifier's images, here or among Ultralytics' own; None where neither is there."""
    return next((place for place in (Path(data), DATASETS_DIR / data) if place.is_dir()), None)


def check_class_folder(data: str) -> None:
    """Refuse what Ultralytics would unpickle or unpack of a classifier's images, which lie in a folder a class.

    Args:
        data: A folder, here or among Ultralytics' own; of any other name nothing is there yet.

    Raises:
        IMAError: If a cache carries code, a pipe or device lies among them, or the folder comes in an archive, which
            nobody has looked through.
    """
    if Path(data).suffix and Path(data).suffix.lower() in ARCHIVES and not Path(data).is_dir():
        raise IMAError(f"data={data}: unpack it first: a classifier's images are taken from a folder")
    root = class_folder(data)
    if root is None:
        return
    root = root.resolve()
    for place in (root, root.parent / f"{root.name}_split"):  # where Ultralytics parts images that are not yet
        check_search(place, ARRAYS)
        for cache in (*place.glob("*.cache"), *place.glob("*/*.cache")):
            _check_cache(cache)
        if (names := place / ".ndjson.yaml").is_file():
            read_plain(names, "data")


def _check_folders(found: Mapping[str, Any], split: str) -> None:
    """Refuse pipes, devices and links to write through beside images and labels, and caches of labels with code.

    Ultralytics unpickles the cache beside the labels of its first image. Which image is first depends on settings, so
    those beside the labels of all are looked at.
    """
    kinds = ("labels", "depth", str(found.get("masks_dir") or "masks"))
    folders = {image.parent for part in {*PARTS[:2], split or "val"} for image in images_in(found.get(part) or [])}
    pairs = [(str(folder / "0.png"), kind) for folder in folders for kind in kinds]
    labels = {Path(img2label_paths([image], label_dir=kind)[0]).parent for image, kind in pairs}
    for folder in sorted({*folders, *labels}):  # of images too: a list may name them, and arrays are kept beside them
        check_entries(folder, ARRAYS if folder in folders else None)
    for cache in sorted(folder.with_suffix(".cache") for folder in labels):
        _check_written(cache)
        if not trusts():
            _check_cache(cache)


def guard_caches() -> None:
    """Have Ultralytics look through every cache of labels before it opens it, wherever that lies, in this process.

    One that is refused is made again, as one that is damaged is.
    """

    def checked(path: Any) -> Any:
        _check_cache(Path(path))
        return load_dataset_cache_file(path)

    dataset.load_dataset_cache_file = checked


def _check_written(cache: Path) -> None:
    """Refuse a pipe or device, and a link to nothing: Ultralytics makes what is there anew, but writes through that."""
    check_plain(cache)
    if cache.is_symlink() and not cache.exists():
        check_link(cache, cache.parent.resolve())


def _check_cache(cache: Path) -> None:
    _check_written(cache)
    if not cache.exists():
        return
    try:
        with cache.open("rb") as file:
            if npy.read_magic(file) != (1, 0):
                raise IMAError("refused, since it has another form")
            shape, _, kind = npy.read_array_header_1_0(file)
            if shape != () or kind.char != "O":
                raise IMAError("refused, since it has another form")
            check_cache(file)
    except Exception as error:
        reason = str(error) if isinstance(error, IMAError) else "refused, since it is damaged"
        raise IMAError(f"{cache}: {reason}; remove it, and it is made again") from None


def images_in(places: str | list[str]) -> Iterator[Path]:
    """Images of a part of a data set, as Ultralytics finds them: in folders, and in text files that list paths.

    Args:
        places: What Ultralytics' resolved data has under `train` or `val`.
    """
    for place in [places] if isinstance(places, str) else places:
        path = Path(place)
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig").strip().splitlines()
            yield from (path.parent / line if line.startswith("./") else Path(line) for line in lines if line.strip())
        elif path.is_dir():  # as Ultralytics searches: through links, without hidden files, by the order of the texts
            check_search(path)
            names = glob.glob(str(Path(glob.escape(str(path))) / "**" / "*.*"), recursive=True)
            yield from (Path(name) for name in sorted(names) if name.rpartition(".")[-1].lower() in IMG_FORMATS)


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
