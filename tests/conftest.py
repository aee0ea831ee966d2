"""Fixtures for all rooms: real data where it is at hand, a drawn data set, plain checkpoints, no network, no litter.

Ultralytics reads its environment when it is first imported, so the environment is set here, before any test module.
"""

from __future__ import annotations

import atexit
import gc
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MODELS = Path(__file__).parent / "models"
SHAPES = ("disc", "square", "triangle")
COLOURS = ((40, 60, 220), (60, 200, 60), (220, 120, 40))  # BGR, one a class
IMAGE_SIZE = 96  # pixels
SECONDS = 300  # that a test may take which fails by waiting


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


def pytest_collection_finish() -> None:
    """Set what the imports made apart from garbage: Ultralytics collects in each epoch, a fifth of the suite's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in a folder of its own, so that no `runs/` lands in the repository."""
    monkeypatch.chdir(tmp_path)
    if "ultralytics.cfg" in sys.modules:  # under pytest it writes relative projects into site-packages instead
        monkeypatch.setattr("ultralytics.cfg.TESTS_RUNNING", False)


_HANDED_OUT: list[Path] = []  # folders of checkpoints that many tests of a session read


def _written(folders: list[Path]) -> dict[Path, tuple[int, int]]:
    files = [file for folder in folders for file in folder.iterdir()]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@pytest.fixture(autouse=True)
def _handed_out_checkpoints_stay() -> Iterator[None]:
    """Fail the test that changes a checkpoint which later tests take for what it was."""
    before = _written(_HANDED_OUT)
    yield
    after = _written(_HANDED_OUT)
    assert [file.name for file, written in before.items() if after.get(file) != written] == []


class Late(BaseException):
    """Not an error that anything would catch."""


@pytest.fixture
def not_waited_for() -> Iterator[None]:
    """Fail the test that waits for a pipe, or searches without end."""

    def end(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


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


def _draw_set(root: Path, write: Callable[[Path, np.ndarray], object], more: str = "") -> Path:
    """Draw 8 training and 4 validation images with boxes, write each by `write(name, image)`; return `data.yaml`."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            image, lines = _draw_scene(rng)
            write(images / str(index), image)
            (labels / f"{index}.txt").write_text("\n".join(lines) + "\n")
    names = "".join(f"  {index}: {name}\n" for index, name in enumerate(SHAPES))
    data = root / "data.yaml"
    data.write_text(f"path: {root}\ntrain: images/train\nval: images/val\n{more}names:\n{names}")
    return data


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data.yaml` of a drawn detection set: 8 training and 4 validation images of 96 x 96 px, 3 classes."""
    root = tmp_path_factory.mktemp("tiny_data")
    return _draw_set(root, lambda name, image: cv2.imwrite(f"{name}.png", image))


@pytest.fixture(scope="session")
def channel_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Factory of `data.yaml` of the set of `tiny_data` in another number of channels: PNGs of 1, TIFFs of more."""

    def make(channels: int) -> Path:
        root = tmp_path_factory.getbasetemp() / f"channels-{channels}"
        if root.exists():
            return root / "data.yaml"

        def write(name: Path, image: np.ndarray) -> None:
            planes = [image[..., number % 3] // (1 + number // 3) for number in range(channels)]
            cv2.imwritemulti(f"{name}{'.png' if channels == 1 else '.tiff'}", planes)

        return _draw_set(root, write, f"channels: {channels}\n")

    return make


def _draw_cards(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw a turned card in each of two or three quadrants; return image, pixel classes, and (class, corners 0-1)."""
    image = rng.integers(90, 140, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    classes, cards, half = np.full((IMAGE_SIZE, IMAGE_SIZE), len(SHAPES), np.uint8), [], IMAGE_SIZE // 2
    for quadrant in rng.permutation(4)[: rng.integers(2, 4)]:
        kind = int(rng.integers(len(SHAPES)))
        centre = (float(quadrant % 2 * half + half / 2), float(quadrant // 2 * half + half / 2))
        corners = cv2.boxPoints((centre, (float(rng.integers(22, 34)), 16.0), float(rng.integers(0, 90))))
        for target, colour in ((image, COLOURS[kind]), (classes, kind)):
            cv2.fillPoly(target, [corners.round().astype(np.int32)], colour)
        cards.append((kind, corners / IMAGE_SIZE))
    return image, classes, cards


def _card_label(task: str, kind: int, corners: np.ndarray) -> str:
    """One line of a label file: a box, a box with its four corners as keypoints, or a polygon."""
    low, high = corners.min(0), corners.max(0)
    values = [*((low + high) / 2), *(high - low)]
    if task == "pose":
        values += [value for corner in corners for value in (*corner, 2)]
    elif task in ("segment", "obb"):
        values = list(corners.ravel())
    return " ".join(map(str, (kind, *(round(float(value), 6) for value in values))))


@pytest.fixture(scope="session")
def task_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Factory of `data.yaml` of a drawn set for a task of Ultralytics: 8 training and 4 validation images of 96 px.

    Three classes; for task semantic the background is a fourth, and the labels are pictures of classes.
    """

    def make(task: str) -> Path:
        root = tmp_path_factory.getbasetemp() / f"cards-{task}"
        if root.exists():
            return root / "data.yaml"
        rng = np.random.default_rng(1)
        for split, count in (("train", 8), ("val", 4)):
            for part in ("images", "masks" if task == "semantic" else "labels"):
                (root / part / split).mkdir(parents=True)
            for index in range(count):
                image, classes, cards = _draw_cards(rng)
                cv2.imwrite(str(root / "images" / split / f"{index}.png"), image)
                if task == "semantic":
                    cv2.imwrite(str(root / "masks" / split / f"{index}.png"), classes)
                else:
                    lines = [_card_label(task, kind, corners) for kind, corners in cards]
                    (root / "labels" / split / f"{index}.txt").write_text("\n".join(lines) + "\n")
        names = (*SHAPES, "background") if task == "semantic" else SHAPES
        extra = {"pose": "kpt_shape: [4, 3]\nflip_idx: [0, 1, 2, 3]\n", "semantic": "masks_dir: masks\n"}.get(task, "")
        listed = "".join(f"  {index}: {name}\n" for index, name in enumerate(names))
        head = f"path: {root}\ntrain: images/train\nval: images/val\n"
        (root / "data.yaml").write_text(f"{head}{extra}names:\n{listed}")
        return root / "data.yaml"

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Factory of untrained, plain Ultralytics checkpoints, as `YOLO("yolo26n.yaml").save()` writes them.

    `tiny_checkpoint(config="yolo26n-few.yaml", names=SHAPES, seed=0)` returns the path of a `.pt` file. An architecture
    with few layers is one of `tests/models`, others are Ultralytics' own. `channels=` is what its images have. Equal
    arguments give the same file within a session: copy it before changing it.
    """
    folder = tmp_path_factory.mktemp("tiny_checkpoint")
    _HANDED_OUT.append(folder)

    def make(
        config: str = "yolo26n-few.yaml", names: tuple[str, ...] = SHAPES, seed: int = 0, channels: int = 3
    ) -> Path:
        path = folder / f"{Path(config).stem}-{'-'.join(names)}-{seed}-{channels}.pt"
        if not path.exists():
            _save_checkpoint(path, str(MODELS / config) if "-few" in config else config, names, seed, channels)
        return path

    return make


def _save_checkpoint(path: Path, config: str, names: tuple[str, ...], seed: int, channels: int) -> None:
    import torch
    from ultralytics import YOLO

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yolo = YOLO(config, verbose=False)
        model = type(yolo.model)(yolo.model.yaml, channels, nc=len(names), verbose=False)
    model.names, model.args, model.task = dict(enumerate(names)), yolo.model.args, yolo.task
    yolo.model = model
    yolo.save(path)


@pytest.fixture(scope="session")
def lively() -> Callable[[Path, Path], Path]:
    """Copy an untrained checkpoint with the statistics of real batches: without them its maps fade to constants."""

    def copy(path: Path, target: Path) -> Path:
        import torch
        from ultralytics import YOLO

        yolo = YOLO(path)
        norms = [module for module in yolo.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            channels = yolo.model.yaml.get("channels", 3)
            yolo.model.train()(torch.rand(4, channels, 64, 64, generator=torch.Generator().manual_seed(0)))
        for norm in norms:
            norm.momentum = 0.03
        yolo.save(target)
        return target

    return copy


@pytest.fixture(scope="session")
def lively_teacher(tiny_checkpoint: Callable[..., Path], lively: Callable[[Path, Path], Path]) -> Path:
    """An untrained detector, wider than the small student, whose maps depend on the image."""
    path = tiny_checkpoint("yolo26s-few.yaml", seed=1)
    return lively(path, path.with_name("lively.pt"))
