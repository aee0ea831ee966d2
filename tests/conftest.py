"""Fixtures for all rooms: real data where it is at hand, a drawn data set, plain checkpoints, no network, no litter.

Ultralytics reads its environment when it is first imported, so the environment is set here, before any test module.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHAPES = ("disc", "square", "triangle")
COLOURS = ((40, 60, 220), (60, 200, 60), (220, 120, 40))  # BGR, one a class
IMAGE_SIZE = 96  # pixels


def _settings(home: Path) -> dict[str, object]:
    """Return all of Ultralytics' settings: it prints a notice into a command's output where one is missing."""
    folders = {f"{name}_dir": str(home / name) for name in ("runs", "weights", "datasets")}
    texts = {"settings_version": "0.0.8", "uuid": "", "api_key": "", "openai_api_key": ""}
    loggers = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
    return {**folders, **texts, **dict.fromkeys((*loggers, "sync", "vscode_msg", "openvino_msg"), False)}


def _isolate_ultralytics() -> None:
    """Point Ultralytics at settings of its own, with a font, and keep it off the network and off pip."""
    home = Path(tempfile.mkdtemp(prefix="ima-yolo-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    config = home / "Ultralytics"
    config.mkdir()
    (config / "settings.json").write_text(json.dumps(_settings(home)))
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is None or matplotlib.origin is None:
        raise RuntimeError("matplotlib is not installed; run `make setup`")
    font = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):  # without them Ultralytics fetches its own
        shutil.copyfile(font, config / name)
    os.environ.update(YOLO_CONFIG_DIR=str(home), YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", MPLBACKEND="Agg")


_isolate_ultralytics()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder of its own, so that no `runs/` lands in the repository."""
    monkeypatch.chdir(tmp_path)
    if "ultralytics.cfg" in sys.modules:  # under pytest it writes relative projects into site-packages instead
        monkeypatch.setattr("ultralytics.cfg.TESTS_RUNNING", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights beside the repository; tests that need it are skipped without it."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"real data not found: {folder / 'data'}")
    return folder


def _draw_shape(image: np.ndarray, kind: int, centre: tuple[int, int], radius: int) -> None:
    x, y = centre
    if kind == 0:
        cv2.circle(image, centre, radius, COLOURS[0], -1)
    elif kind == 1:
        cv2.rectangle(image, (x - radius, y - radius), (x + radius, y + radius), COLOURS[1], -1)
    else:
        corners = np.array([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)])
        cv2.fillPoly(image, [corners], COLOURS[2])


def _draw_scene(rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Draw one shape in each of two or three quadrants; return the image and its label lines."""
    image = rng.integers(90, 140, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    half, labels = IMAGE_SIZE // 2, []
    for quadrant in rng.permutation(4)[: rng.integers(2, 4)]:
        kind, radius = int(rng.integers(3)), int(rng.integers(10, 19))
        free = half - 2 * radius - 1
        x = int(quadrant % 2) * half + radius + int(rng.integers(free))
        y = int(quadrant // 2) * half + radius + int(rng.integers(free))
        _draw_shape(image, kind, (x, y), radius)
        extent = (2 * radius + 1) / IMAGE_SIZE
        labels.append(f"{kind} {(x + 0.5) / IMAGE_SIZE:.6f} {(y + 0.5) / IMAGE_SIZE:.6f} {extent:.6f} {extent:.6f}")
    return image, labels


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data.yaml` of a drawn detection set: 8 training and 4 validation images of 96 x 96 px, 3 classes."""
    root = tmp_path_factory.mktemp("tiny_data")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            image, lines = _draw_scene(rng)
            cv2.imwrite(str(images / f"{index}.png"), image)
            (labels / f"{index}.txt").write_text("\n".join(lines) + "\n")
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(SHAPES))
    data = root / "data.yaml"
    data.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames:\n{names}")
    return data


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Factory of untrained, plain Ultralytics checkpoints, as `YOLO("yolo26n.yaml").save()` writes them.

    `tiny_checkpoint(config="yolo26n.yaml", names=SHAPES, seed=0)` returns the path of a `.pt` file. Equal arguments
    give the same file within a session: copy it before changing it.
    """
    folder = tmp_path_factory.mktemp("tiny_checkpoint")

    def make(config: str = "yolo26n.yaml", names: tuple[str, ...] = SHAPES, seed: int = 0) -> Path:
        path = folder / f"{Path(config).stem}-{'-'.join(names)}-{seed}.pt"
        if not path.exists():
            _save_checkpoint(path, config, names, seed)
        return path

    return make


def _save_checkpoint(path: Path, config: str, names: tuple[str, ...], seed: int) -> None:
    import torch
    from ultralytics import YOLO

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yolo = YOLO(config, verbose=False)
        model = type(yolo.model)(yolo.model.yaml, nc=len(names), verbose=False)
    model.names, model.args, model.task = dict(enumerate(names)), yolo.model.args, yolo.task
    yolo.model = model
    yolo.save(path)
