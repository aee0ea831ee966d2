"""The demo's detection set: cluttered scenes of things that hide each other, drawn from a seed, with exact boxes."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import yaml

from ima_yolo.demo.sprites import NAMES, Array, Sprite, draw_distractor, draw_sprite, random_colour
from ima_yolo.errors import IMAError

MIN_VISIBLE = 0.3
SUPERSAMPLE = 3
_SPLITS = ("train", "val")
_MARK = "drawn"


class Item(NamedTuple):
    """A sprite in a scene: the (x, y) of its upper left corner in supersampled pixels, its class or None."""

    sprite: Sprite
    corner: tuple[int, int]
    label: int | None


class Scene(NamedTuple):
    """A drawn image (S, S, 3) uint8 BGR with the labels of its things.

    `boxes` (N, 4) are xyxy in pixels around the visible part, `classes` (N,) are indices into NAMES. `owner` is the map
    (S * SUPERSAMPLE, S * SUPERSAMPLE) of whose thing a pixel shows: -1 the ground, else an index into `items`.
    """

    image: Array
    boxes: Array
    classes: Array
    owner: Array
    items: tuple[Item, ...]


def _smooth_noise(side: int, cells: int, rng: np.random.Generator) -> Array:
    return cv2.resize(rng.random((cells, cells), dtype=np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def _ground(side: int, rng: np.random.Generator) -> Array:
    """A background (side, side, 3): two colours mixed by stripes, checks or clouds over a slope."""
    first = 0.5 * random_colour(rng, 0.15, 0.9) + 0.5 * np.float32(rng.uniform(0.15, 0.9))
    second = np.clip(first + rng.uniform(-0.3, 0.3, 3), 0, 1).astype(np.float32)
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    turn, pitch = rng.uniform(0, np.pi), rng.uniform(8, 30)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    texture = (np.sin(pitch * u), np.sin(pitch * u) * np.sin(pitch * v), np.zeros_like(u))[int(rng.integers(3))]
    mix: Array = 0.5 + 0.25 * u + rng.uniform(0.1, 0.3) * texture + 0.8 * (_smooth_noise(side, 7, rng) - 0.5)
    mix = np.clip(mix, 0, 1).astype(np.float32)[..., None]
    return first * (1 - mix) + second * mix


def _overlap(corner: tuple[int, int], extent: tuple[int, ...], side: int) -> tuple[tuple[slice, slice], ...]:
    """Where a patch of `extent` (h, w) at `corner` (x, y) lies on the canvas, and which part of the patch that is."""
    (x, y), (height, width) = corner, extent
    x0, y0 = np.clip((x, y), 0, side)
    x1, y1 = np.clip((x + width, y + height), 0, side)
    return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]


def _cast_shadow(picture: Array, item: Item) -> None:
    """Darken `picture` in place to the lower right of the item, softly."""
    inside = item.sprite.inside
    reach = max(2, round(0.08 * max(inside.shape)))
    shadow = np.pad(inside.astype(np.float32), reach)
    shadow = 1 - 0.45 * cv2.blur(shadow, (2 * reach + 1, 2 * reach + 1), borderType=cv2.BORDER_CONSTANT)
    there, here = _overlap(item.corner, shadow.shape, picture.shape[0])
    picture[there] *= shadow[here][..., None]


def compose(ground: Array, items: Iterable[Item]) -> tuple[Array, Array]:
    """Paste items, farthest first, each over its own soft shadow.

    Args:
        ground: (side, side, 3) colours 0-1; it is left as it was.
        items: things with corners in the ground's pixels.

    Returns:
        The picture (side, side, 3) and the owner map (side, side).
    """
    picture, side = ground.copy(), ground.shape[0]
    owner = np.full((side, side), -1, np.int16)
    for index, item in enumerate(items):
        _cast_shadow(picture, item)
        there, here = _overlap(item.corner, item.sprite.inside.shape, side)
        inside = item.sprite.inside[here]
        picture[there][inside] = item.sprite.colour[here][inside]
        owner[there][inside] = index
    return picture, owner


def visible_boxes(owner: Array, items: Iterable[Item]) -> tuple[Array, Array]:
    """Boxes (N, 4) xyxy around the visible parts, in pixels of the owner map, and classes (N,).

    Things of which less than MIN_VISIBLE can be seen (what lies outside the image counts as hidden) have no box.
    """
    boxes, classes = [], []
    for index, item in enumerate(items):
        seen = owner == index
        if item.label is None or seen.sum() < MIN_VISIBLE * item.sprite.inside.sum():
            continue
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        classes.append(item.label)
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(classes, np.int64)


def _place(side: int, extent: tuple[int, ...], near: Item | None, rng: np.random.Generator) -> tuple[int, int]:
    """A corner anywhere such that the middle lies in the image, or beside the thing `near`, partly covering it."""
    height, width = extent
    if near is None:
        x, y = rng.uniform(0.06, 0.94, 2) * side
    else:
        near_height, near_width = near.sprite.inside.shape
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.45)
        x = near.corner[0] + near_width / 2 + reach * (width + near_width) * np.cos(angle)
        y = near.corner[1] + near_height / 2 + reach * (height + near_height) * np.sin(angle)
    return round(float(np.clip(x, 0, side)) - width / 2), round(float(np.clip(y, 0, side)) - height / 2)


def _items(side: int, rng: np.random.Generator) -> list[Item]:
    """5 to 9 things of 17 to 45 percent of the side, log-uniform, and 1 to 3 distractors among them."""
    labels: list[int | None] = [int(k) for k in rng.integers(len(NAMES), size=int(rng.integers(5, 10)))]
    labels += [None] * int(rng.integers(1, 4))
    items: list[Item] = []
    for label in rng.permutation(np.array(labels, object)):
        size = round(side * float(np.exp(rng.uniform(np.log(0.17), np.log(0.45)))))
        sprite = draw_distractor(size, rng) if label is None else draw_sprite(NAMES[label], size, rng)
        near = items[int(rng.integers(len(items)))] if items and rng.random() < 0.25 else None
        items.append(Item(sprite, _place(side, sprite.inside.shape, near, rng), label))
    return items


def _photograph(picture: Array, rng: np.random.Generator) -> Array:
    """Uneven light, exposure, a little blur and sensor noise: colours (S, S, 3) 0-1 to bytes."""
    side = picture.shape[0]
    light = 0.65 + 0.7 * _smooth_noise(side, 3, rng)
    picture = cv2.GaussianBlur(picture * light[..., None], (0, 0), rng.uniform(0.2, 0.8))
    picture = np.clip(picture, 0, None) ** rng.uniform(0.8, 1.25) * rng.uniform(0.7, 1.1)
    noise = rng.normal(0, rng.uniform(0.005, 0.025), picture.shape)
    return np.clip(np.rint(255 * (picture + noise)), 0, 255).astype(np.uint8)


def draw_scene(imgsz: int, rng: np.random.Generator) -> Scene:
    """Draw one scene of `imgsz` pixels a side.

    The same generator state gives the same bits, as far as NumPy and OpenCV do: another kind of processor may round
    the last bit of a pixel otherwise.
    """
    side = imgsz * SUPERSAMPLE
    ground = cv2.resize(_ground(imgsz, rng), (side, side))
    items = _items(side, rng)
    picture, owner = compose(ground, items)
    boxes, classes = visible_boxes(owner, items)
    image = _photograph(cv2.resize(picture, (imgsz, imgsz), interpolation=cv2.INTER_AREA), rng)
    return Scene(image, boxes / SUPERSAMPLE, classes, owner, tuple(items))


def scene_generator(seed: int, split: str, index: int) -> np.random.Generator:
    """The random stream of one image: it depends on nothing but these three, so sets of other lengths share images."""
    return np.random.default_rng([seed, _SPLITS.index(split), index])


def _write_scene(scene: Scene, image: Path, label: Path) -> None:
    side = scene.image.shape[0]
    centre, extent = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2, scene.boxes[:, 2:] - scene.boxes[:, :2]
    rows = np.hstack([centre, extent]) / side  # (N, 4) cx, cy, w, h of 0-1
    lines = []
    for kind, row in zip(scene.classes, rows, strict=True):
        lines.append(f"{kind} " + " ".join(f"{value:.6f}" for value in row))
    label.write_text("".join(line + "\n" for line in lines))
    image.write_bytes(cv2.imencode(".png", scene.image)[1].tobytes())


def _write_set(folder: Path, counts: dict[str, int], imgsz: int, seed: int) -> None:
    for split, count in counts.items():
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for index in range(count):
            scene = draw_scene(imgsz, scene_generator(seed, split, index))
            _write_scene(scene, images / f"{index:05d}.png", labels / f"{index:05d}.txt")
    data: dict[str, object] = {
        _MARK: {**counts, "imgsz": imgsz, "seed": seed},
        **{split: f"images/{split}" for split in counts},
        "names": dict(enumerate(NAMES)),
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(data, sort_keys=False))


def _is_ours(folder: Path) -> bool:
    path = folder / "data.yaml"
    return path.is_file() and _MARK in (yaml.safe_load(path.read_text()) or {})


def draw_set(folder: Path, train: int, val: int, imgsz: int = 160, seed: int = 0) -> Path:
    """Draw an Ultralytics detection set into `folder`, all of it or nothing, and return its data.yaml.

    Args:
        folder: where images/, labels/ and data.yaml go. A set drawn earlier is replaced, nothing else.
        train: number of training images, at least 1.
        val: number of validation images, at least 1.
        imgsz: side of the square images in pixels, at least 32.
        seed: 0 or more; the same arguments give the same bytes, see `draw_scene`.

    Raises:
        IMAError: a number is out of range, `folder` holds something else, or it cannot be written.
    """
    for key, value, least in (("train", train, 1), ("val", val, 1), ("imgsz", imgsz, 32), ("seed", seed, 0)):
        if value < least:
            raise IMAError(f"{key}={value}: expected a whole number of at least {least}")
    folder = Path(folder).resolve()
    if folder.exists() and not _is_ours(folder):
        raise IMAError(f"{folder}: not a drawn set, so it is not replaced; name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            _write_set(Path(temporary) / "new", {"train": train, "val": val}, imgsz, seed)
            if folder.exists():
                shutil.move(folder, Path(temporary) / "old")
            shutil.move(Path(temporary) / "new", folder)
    except OSError as error:
        raise IMAError(f"{folder}: cannot write the set there ({error.strerror}); name a writable folder") from error
    return folder / "data.yaml"
