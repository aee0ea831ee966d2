"""What a study is made of, recognised by content: the same wherever the files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ultralytics.nn.tasks import yaml_model_load

from ima_yolo.config import Settings
from ima_yolo.data_set import images_in
from ima_yolo.experiment.images import label_path, relative_names
from ima_yolo.host import load_model
from ima_yolo.pairing import weights_of
from ima_yolo.teachers.load import is_file
from ima_yolo.teachers.module import weights_digest
from ima_yolo.versions import DIGITS, versions

# What can change the outcome of a training and its measurement; reports and commands cannot.
TRAINING_CODE = (
    *("features.py", "host.py", "align.py", "masks.py", "moments.py", "weighting.py", "criterion.py", "checkpoint.py"),
    *("distill.py", "assembly.py", "attach.py", "trainer.py", "config.py", "pairing.py", "unlabelled.py", "labels.py"),
    *("merit.py", "finite.py", "data_order.py", "exact.py", "random_streams.py", "students.py", "architecture.py"),
    *("teachers/*.py", "losses/*.py", "pickles/*.py", "quantized.py", "experiment/worker.py", "summary.py"),
    *("continuing.py", "preflight.py", "given.py", "recipes.py", "data_set.py", "experiment/images.py"),
)
TRAINING_PACKAGES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python")


def code_version() -> dict[str, str]:
    """Versions of the packages that train, and a digest of our own files that do."""
    return versions(TRAINING_CODE, TRAINING_PACKAGES)


def teacher_identity(settings: Settings) -> dict[str, str]:
    """Names and digest of what teaches.

    A checkpoint is known by its weights, a model of torchvision or timm by its name and that of its weights, or what is
    in their file, and a function by its name alone.
    """
    weights = weights_of(settings.teachers, settings.ima_teacher_weights)
    each = [_one_teacher(name, own) for name, own in zip(settings.teachers, weights, strict=True)]
    if len(each) == 1:
        return each[0]
    digest = hashlib.sha256(json.dumps([one["digest"] for one in each]).encode()).hexdigest()
    return {"name": ",".join(one["name"] for one in each), "digest": digest[:DIGITS]}


def _one_teacher(name: str, weights: str | None) -> dict[str, str]:
    if is_file(name):
        return model_identity(name, "teacher")
    known = f"{name} {weights}".encode()
    if weights is not None and Path(weights).is_file():
        known = name.encode() + Path(weights).read_bytes()
    return {"name": name, "digest": hashlib.sha256(known).hexdigest()[:DIGITS]}


def model_identity(path: str, role: str) -> dict[str, str]:
    """Name and digest of a checkpoint's weights, or of an architecture's description.

    Args:
        path: A checkpoint, or a `.yaml` file, here or among those of Ultralytics.
        role: For messages.
    """
    if path.endswith((".yaml", ".yml")):
        description = {key: value for key, value in yaml_model_load(path).items() if key != "yaml_file"}
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
    else:
        digest = weights_digest(load_model(path, role)[0])
    return {"name": Path(path).name, "digest": digest[:DIGITS]}


def data_identity(path: str, data: Mapping[str, Any]) -> dict[str, str]:
    """Name of a data set and digest of its classes, image names and sizes, and labels.

    Images are not read, only their sizes in bytes are: a study may have a hundred thousand of them.

    Args:
        path: The data set's YAML file.
        data: The data set as Ultralytics reads it; empty for a file that Ultralytics has yet to convert.
    """
    digest = hashlib.sha256()
    if not data:
        digest.update(Path(path).read_bytes())
    else:
        digest.update(json.dumps({str(index): name for index, name in data["names"].items()}).encode())
        for part in ("train", "val"):
            _add_images(digest, part, images_in(data[part]))
    return {"name": Path(path).name, "digest": digest.hexdigest()[:DIGITS]}


def _add_images(digest: Any, part: str, images: Iterable[Path]) -> None:
    for name, image in relative_names(images):
        label = label_path(image)
        size = image.stat().st_size if image.is_file() else -1
        digest.update(f"{part}/{name}:{size}\n".encode() + (label.read_bytes() if label.is_file() else b""))
