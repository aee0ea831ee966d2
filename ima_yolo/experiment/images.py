"""The images of a study: their labels, and a part of train held out to choose on."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, img2label_paths

from ima_yolo.data_set import images_in
from ima_yolo.errors import IMAError

SEED = "0"  # of the held-out part: one part for every study of the same data


def label_path(image: Path) -> Path:
    """Where Ultralytics looks for an image's labels."""
    return Path(img2label_paths([str(image)])[0])


def relative_names(images: Iterable[Path]) -> list[tuple[str, Path]]:
    """Name images by their path inside the folder that holds them all, in the order of these names."""
    files = list(images)
    if not files:
        return []
    root = os.path.commonpath([str(file.parent) for file in files])
    return sorted((file.relative_to(root).as_posix(), file) for file in files)


def scan_labels(path: str, fraction: float = 1.0) -> None:
    """Let Ultralytics read all labels once; trainings that start together then find its cache instead of racing for it.

    Args:
        path: A detection set's YAML file.
        fraction: Share of the training images in use, which is part of the cache's key.
    """
    data = check_det_dataset(path)
    for part, share in (("train", fraction), ("val", 1.0)):
        YOLODataset(img_path=data[part], data=data, task="detect", augment=False, fraction=share)


def held_out(names: Iterable[str], share: float) -> set[str]:
    """Choose a share of names, at least one, by the digests of the names: the same on every machine.

    Args:
        names: At least two, else there is nothing to choose.
        share: In (0, 1).
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"{SEED}:{name}".encode()).hexdigest())
    return set(order[: min(len(order) - 1, max(1, round(share * len(order))))])


def hold_out(data: Mapping[str, Any], share: float, folder: Path) -> Path:
    """Split train into a part to train on and a part to choose on, so that val stays untouched.

    The data set that is made holds links to the images and labels (copies where links cannot be made), so that nothing
    is written beside the originals.

    Args:
        data: The data set as Ultralytics reads it.
        share: Share of train that is held out, in (0, 1).
        folder: Where the split is made; an intact one of the same images is kept.

    Returns:
        Its `data.yaml`.

    Raises:
        IMAError: If train has fewer than two images.
    """
    named = relative_names(images_in(data["train"]))
    if len(named) < 2:
        raise IMAError(f"holdout={share}: needs at least two training images, found {len(named)}")
    description = folder / "data.yaml"
    if _is_intact(folder, len(named)):
        return description
    folder.parent.mkdir(parents=True, exist_ok=True)
    chosen = held_out((name for name, _ in named), share)
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        making = Path(place) / "data"
        for name, image in named:
            _link_pair(name, image, making, "val" if name in chosen else "train")
        kept = {key: data[key] for key in ("names", "channels") if key in data}
        content = {"path": str(folder.absolute()), "train": "images/train", "val": "images/val", **kept}
        (making / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(making, folder)
    return description


def _is_intact(folder: Path, count: int) -> bool:
    """Whether a split is whole, in its own place, and all its links lead to files."""
    try:
        content = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return False
    images = [file for part in ("train", "val") for file in (folder / "images" / part).glob("*")]
    return content["path"] == str(folder.absolute()) and len(images) == count and all(file.exists() for file in images)


def _link_pair(name: str, image: Path, folder: Path, part: str) -> None:
    flat = name.replace("/", "__")
    pairs = {folder / "images" / part / flat: image}
    label = label_path(image)
    if label.is_file():
        pairs[(folder / "labels" / part / flat).with_suffix(".txt")] = label
    for link, target in pairs.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(target.absolute())
        except OSError:  # file systems and accounts without links
            shutil.copyfile(target, link)
