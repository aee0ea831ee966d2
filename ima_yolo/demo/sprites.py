"""The things of the demo's scenes, drawn from formulas: each kind is a silhouette, a two-colour pattern and a shading.

No single cue tells the kinds apart: planet and ball, die and crate share a silhouette, crate and star, die and gear
their usual colours, and a part of all things has any colour at all.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Surface(NamedTuple):
    """One kind drawn on a grid (n, n).

    `inside` is its silhouette, `pattern` chooses the second colour over the first, `light` is a factor on both.
    """

    inside: Array
    pattern: Array
    light: Array


class Sprite(NamedTuple):
    """A thing ready to be pasted: `colour` (h, w, 3) BGR 0-1 and `inside` (h, w) bool, cropped to its silhouette."""

    colour: Array
    inside: Array


def _sphere_light(x: Array, y: Array, radius: float) -> Array:
    z = np.sqrt(np.clip(1 - (x * x + y * y) / radius**2, 0, 1))
    return 0.45 + 0.65 * np.clip(-0.45 * x - 0.55 * y + 0.75 * z, 0, None)


def _planet(x: Array, y: Array, rng: np.random.Generator) -> Surface:
    waves = np.sin(rng.uniform(8, 11) * y + 0.6 * np.sin(rng.uniform(2, 4) * x + rng.uniform(0, 6)))
    return Surface(np.hypot(x, y) < 0.95, waves > 0, _sphere_light(x, y, 0.95))


def _ball(x: Array, y: Array, rng: np.random.Generator) -> Surface:
    pitch = rng.uniform(0.5, 0.6)
    row = np.round((y + rng.uniform(-0.2, 0.2)) / (pitch * 0.87))
    u = x + 0.5 * pitch * (row % 2)
    dots = np.hypot(u - pitch * np.round(u / pitch), y - row * pitch * 0.87) < 0.33 * pitch
    return Surface(np.hypot(x, y) < 0.95, dots, _sphere_light(x, y, 0.95))


def _square(x: Array, y: Array, half: float, corner: float) -> Array:
    """Signed distance to a square with rounded corners, negative inside."""
    u, v = np.abs(x) - half + corner, np.abs(y) - half + corner
    return np.hypot(np.clip(u, 0, None), np.clip(v, 0, None)) + np.clip(np.maximum(u, v), None, 0) - corner


_PIPS = {
    1: [(0, 0)],
    2: [(-1, -1), (1, 1)],
    3: [(-1, -1), (0, 0), (1, 1)],
    4: [(-1, -1), (-1, 1), (1, -1), (1, 1)],
    5: [(-1, -1), (-1, 1), (0, 0), (1, -1), (1, 1)],
    6: [(-1, -1), (-1, 0), (-1, 1), (1, -1), (1, 0), (1, 1)],
}


def _die(x: Array, y: Array, rng: np.random.Generator) -> Surface:
    distance = _square(x, y, 0.8, 0.25)
    pips = np.zeros(x.shape, bool)
    for u, v in _PIPS[int(rng.integers(1, 7))]:
        pips |= np.hypot(x - 0.42 * u, y - 0.42 * v) < 0.17
    return Surface(distance < 0, pips, 1.0 - 0.2 * (x + y) / 2 - 0.35 * (distance > -0.08))


def _crate(x: Array, y: Array, rng: np.random.Generator) -> Surface:
    distance = _square(x, y, 0.8, 0.03)
    side = 1 if rng.random() < 0.5 else -1
    boards = (distance > -0.2) | (np.abs(x - side * y) < 0.2)
    gaps = (np.abs((y / 0.3) % 1 - 0.5) > 0.42) & ~boards
    return Surface(distance < 0, boards, 1.0 - 0.15 * (x + y) / 2 - 0.45 * gaps)


def _star(x: Array, y: Array, rng: np.random.Generator) -> Surface:
    points = int(rng.integers(5, 7))
    sector = 2 * np.pi / points
    angle = np.arctan2(y, x) % sector - sector / 2
    u, v = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.abs(np.sin(angle))
    tip, notch = 0.98, rng.uniform(0.42, 0.5)
    # The edge runs from the notch on the sector's axis to the tip at its border.
    tip_u, tip_v = tip * np.cos(sector / 2), tip * np.sin(sector / 2)
    inside = (u - notch) * tip_v < v * (tip_u - notch)
    return Surface(inside, angle > 0, 1.05 - 0.2 * np.hypot(x, y))


def _gear(x: Array, y: Array, rng: np.random.Generator) -> Surface:
    radius, teeth = np.hypot(x, y), int(rng.integers(7, 10))
    rim = 0.82 + 0.14 * np.clip(3 * np.sin(teeth * np.arctan2(y, x)), -1, 1)
    inside = (radius < rim) & (radius > 0.28)
    return Surface(inside, np.abs(radius - 0.5) < 0.11, 1.0 - 0.25 * y * (radius < 0.62) - 0.15 * y)


_KINDS: dict[str, Callable[[Array, Array, np.random.Generator], Surface]] = {
    "planet": _planet,
    "ball": _ball,
    "die": _die,
    "crate": _crate,
    "star": _star,
    "gear": _gear,
}
NAMES: tuple[str, ...] = tuple(_KINDS)


# Usual hue (0-1), its spread (standard deviation), and the range of saturation.
_USUAL: dict[str, tuple[float, float, float, float]] = {
    "planet": (0.60, 0.05, 0.4, 0.8),
    "ball": (0.96, 0.05, 0.4, 0.9),
    "die": (0.50, 0.30, 0.0, 0.2),
    "crate": (0.08, 0.03, 0.4, 0.8),
    "star": (0.14, 0.03, 0.5, 0.9),
    "gear": (0.42, 0.06, 0.2, 0.6),
}
ODD_COLOURS = 0.15


def random_colour(rng: np.random.Generator, dark: float, bright: float) -> Array:
    """Draw a BGR colour (3,) with values 0-1, any hue, and a brightness from `dark` to `bright`."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.9), rng.uniform(dark, bright))
    return np.array([blue, green, red], np.float32)


def _colours(kind: str, rng: np.random.Generator) -> tuple[Array, Array]:
    """A pale and a deep BGR colour (3,) of a kind: its usual hue, or any."""
    if rng.random() < ODD_COLOURS:
        return random_colour(rng, 0.7, 1.0), random_colour(rng, 0.1, 0.35)
    hue, spread, low, high = _USUAL[kind]
    hue, saturation = (hue + spread * rng.standard_normal()) % 1.0, rng.uniform(low, high)
    pale = colorsys.hsv_to_rgb(hue, saturation, rng.uniform(0.7, 1.0))
    deep = colorsys.hsv_to_rgb(hue, min(1.0, 1.3 * saturation), rng.uniform(0.1, 0.35))
    return np.array(pale[::-1], np.float32), np.array(deep[::-1], np.float32)


def _grid(size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Coordinates (size, size) of -1 to 1 on the thing, turned by any angle and seen up to 40 degrees from the side."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    turn, lean, squash = rng.uniform(0, 2 * math.pi), rng.uniform(0, math.pi), rng.uniform(0.77, 1.0)
    x, y = np.meshgrid(axis, axis)
    u, v = x * math.cos(lean) + y * math.sin(lean), (y * math.cos(lean) - x * math.sin(lean)) / squash
    return u * math.cos(turn) + v * math.sin(turn), v * math.cos(turn) - u * math.sin(turn)


def _crop(colour: Array, inside: Array) -> Sprite:
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Sprite(colour[window], inside[window])


def draw_sprite(kind: str, size: int, rng: np.random.Generator) -> Sprite:
    """Draw one thing of a kind in NAMES, its longer side at most `size` pixels.

    Its two colours differ by at least 0.35 in brightness, so that the pattern stays visible.
    """
    surface = _KINDS[kind](*_grid(size, rng), rng)
    pale, deep = _colours(kind, rng)
    first, second = (pale, deep) if rng.random() < 0.9 else (deep, pale)
    mix = surface.pattern.astype(np.float32)[..., None]
    colour = (first * (1 - mix) + second * mix) * surface.light[..., None].astype(np.float32)
    return _crop(np.clip(colour, 0, 1), surface.inside)


def draw_distractor(size: int, rng: np.random.Generator) -> Sprite:
    """Draw a thing of no class: a plain disc, polygon or bar, its longer side at most `size` pixels."""
    x, y = _grid(size, rng)
    shape = int(rng.integers(3))
    if shape == 0:
        inside = np.hypot(x, y) < 0.9
    elif shape == 1:
        corners = rng.uniform(-0.95, 0.95, (int(rng.integers(3, 6)), 2))
        canvas = np.zeros(x.shape, np.uint8)
        hull = cv2.convexHull(((corners + 1) * size / 2).astype(np.int32))
        inside = cv2.fillConvexPoly(canvas, hull, 1).astype(bool)
    else:
        inside = (np.abs(y) < rng.uniform(0.08, 0.2)) & (np.abs(x) < 0.95)
    shade = 1 + rng.uniform(-0.3, 0.3) * x + rng.uniform(-0.3, 0.3) * y
    return _crop(np.clip(random_colour(rng, 0.15, 1.0) * shade[..., None], 0, 1).astype(np.float32), inside)
