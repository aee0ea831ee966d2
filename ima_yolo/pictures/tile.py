"""One image with what one source says about it, drawn at the size of a tile."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ima_yolo.data_set import read_image
from ima_yolo.errors import IMAError
from ima_yolo.pictures.column import Column

WIDTH = 400  # px, of one image in the grid
PAGE, INK = (255, 255, 255), (28, 32, 38)
OPACITY = 0.45  # share of a mask's colour in a pixel
VISIBLE = 0.5  # keypoints less certain than this are left out
Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the font of all texts at a size in pixels."""
    # Pillow's own font is a bitmap on some builds; matplotlib, which ultralytics needs, ships DejaVu everywhere.
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


_PALETTE = (
    "#e6332a",
    "#1f77d0",
    "#2ca02c",
    "#ff9f1c",
    "#9b4dca",
    "#00a6a6",
    "#e84393",
    "#8c6d46",
    "#c2b000",
    "#5b6ee1",
)


def class_colours(names: Iterable[str]) -> dict[str, Colour]:
    """An RGB colour for every name: the palette in the names' order, then further hues."""
    colours: dict[str, Colour] = {}
    for index, name in enumerate(dict.fromkeys(names)):
        if index < len(_PALETTE):
            red, green, blue = bytes.fromhex(_PALETTE[index][1:])
        else:
            red, green, blue = (round(255 * v) for v in colorsys.hsv_to_rgb(0.618034 * index % 1.0, 0.75, 0.8))
        colours[name] = (red, green, blue)
    return colours


def _ink_on(colour: Colour) -> Colour:
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else PAGE


def open_image(path: Path) -> Image.Image:
    """Read an image as RGB, turned as its camera says; of more than three channels the first three are shown.

    Raises:
        IMAError: If it cannot be read.
    """
    if Path(path).suffix.lower() in (".tif", ".tiff"):
        return _open_channels(path)
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):  # PIL would cut 16 bits off at 255
                return _open_channels(path)
            return ImageOps.exif_transpose(image).convert("RGB")
    # Once ultralytics is imported, PIL asks for its HEIF plugin before it gives an unknown format up.
    except (OSError, ImportError) as error:
        raise IMAError(f"{path}: expected an image that can be read; check the file") from error


def _open_channels(path: Path) -> Image.Image:
    image = read_image(path, channels=0)  # as it is
    if image is None:
        raise IMAError(f"{path}: expected an image that can be read; check the file")
    return Image.fromarray(as_rgb(image))


def as_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """Bring an image of any number of channels, (H, W, C) with BGR first, to (H, W, 3) RGB uint8, to be looked at.

    Grey is repeated; of more than three channels the first three are shown, and two get an empty third, as in
    Ultralytics' pictures.
    """
    shown = image[..., :3].clip(0, 255).astype(np.uint8)
    if shown.shape[2] == 1:
        return np.repeat(shown, 3, axis=2)
    if shown.shape[2] == 2:
        shown = np.dstack([shown, np.zeros_like(shown[..., :1])])
    return np.ascontiguousarray(shown[..., ::-1])


def _shared_area(a: Rectangle, b: Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def tag_place(box: Rectangle, extent: tuple[int, int], taken: Sequence[Rectangle], tile: tuple[int, int]) -> Rectangle:
    """The place in the tile at a corner of the box, outside or inside, where a tag covers the least of those taken."""
    (x0, y0, x1, y1), (width, height) = box, extent
    left, right = x0 - 1, x1 + 1 - width
    corners = [(x, y) for y in (y0 - height, y1, y0, y1 - height) for x in (left, right)]
    places = []
    for x, y in corners:
        x, y = min(max(x, 0), tile[0] - width), min(max(y, 0), tile[1] - height)
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: sum(_shared_area(place, other) for other in taken))


def _draw_box(draw: ImageDraw.ImageDraw, box: Rectangle, colour: Colour) -> None:
    """Draw a box with a dark edge, which shows on any ground."""
    x0, y0, x1, y1 = box
    draw.rounded_rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), 4, outline=INK, width=4)
    draw.rounded_rectangle(box, 3, outline=colour, width=2)


def _draw_turned(draw: ImageDraw.ImageDraw, corners: NDArray[Any], colour: Colour) -> None:
    """Draw a box by its four corners, (4, 2)."""
    closed = [(float(x), float(y)) for x, y in (*corners, *corners[:2])]
    draw.line(closed, INK, 4, joint="curve")
    draw.line(closed, colour, 2, joint="curve")


def _tag(draw: ImageDraw.ImageDraw, box: Rectangle, text: str, colour: Colour, taken: list[Rectangle]) -> Rectangle:
    """Write a tag at a corner of a box and return its place."""
    extent = round(font(12).getlength(text)) + 8, 17
    place = tag_place(box, extent, taken, draw.im.size)
    draw.rounded_rectangle(place, 3, fill=colour)
    draw.text((place[0] + 4, place[1] + extent[1] / 2), text, _ink_on(colour), font(12), anchor="lm")
    return place


def _tint_pixels(tile: Image.Image, column: Column, index: int, colours: Mapping[str, Colour]) -> Image.Image:
    """Tint every pixel by its class."""
    classes = Image.fromarray(np.asarray(column.pixels[index], np.uint8)) if column.pixels else None
    if classes is None:
        return tile
    found = np.asarray(classes.resize(tile.size, Image.Resampling.NEAREST))
    painted = np.array(tile)
    for number, name in column.names.items():
        chosen = found == number
        painted[chosen] = ((1 - OPACITY) * painted[chosen] + OPACITY * np.array(colours[name])).astype(np.uint8)
    return Image.fromarray(painted)


def _tint_masks(tile: Image.Image, masks: Sequence[Sequence[NDArray[Any]]], shades: Sequence[Colour]) -> Image.Image:
    """Fill the outlines of each object, the best last and so on top."""
    filled = tile.copy()
    draw = ImageDraw.Draw(filled)
    for outlines, colour in reversed(list(zip(masks, shades, strict=True))):
        for outline in outlines:
            if len(outline) > 2:
                draw.polygon([tuple(point) for point in outline.tolist()], fill=colour)
    return Image.blend(tile, filled, OPACITY)


def _draw_keypoints(draw: ImageDraw.ImageDraw, points: NDArray[Any], colour: Colour) -> None:
    for x, y, *certain in points.tolist():
        if not certain or certain[0] >= VISIBLE:
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour, outline=INK)


def draw_tile(image: Image.Image, column: Column, index: int, colours: Mapping[str, Colour]) -> Image.Image:
    """Draw what a column says of one image; small images are enlarged before anything is drawn.

    Args:
        image: RGB.
        column: What is drawn.
        index: Which of the column's images this is.
        colours: RGB by class name.

    Returns:
        A picture `WIDTH` pixels wide.
    """
    scale = WIDTH / image.width
    tile = image.resize((WIDTH, max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
    tile = _tint_pixels(tile, column, index, colours)
    names = [column.names[int(number)] for number in column.classes[index]]
    shades = [colours[name] for name in names]
    if column.masks is not None:
        scaled = [[np.asarray(outline) * scale for outline in outlines] for outlines in column.masks[index]]
        tile = _tint_masks(tile, scaled, shades)
    draw = ImageDraw.Draw(tile)
    boxes = _boxes(column, index, scale)
    for row, shade in enumerate(shades):  # first all outlines, then the tags, so that no outline crosses a text
        if column.corners is None:
            _draw_box(draw, boxes[row], shade)
        else:
            _draw_turned(draw, column.corners[index][row] * scale, shade)
        if column.keypoints is not None:
            points = np.array(column.keypoints[index][row], float)
            points[:, :2] *= scale
            _draw_keypoints(draw, points, shade)
    taken: list[Rectangle] = []
    for row, (name, shade) in enumerate(zip(names, shades, strict=True)):
        text = name if column.scores is None else f"{name} {float(column.scores[index][row]):.2f}"
        taken.append(_tag(draw, boxes[row], text, shade, taken))
    return tile


def _boxes(column: Column, index: int, scale: float) -> list[Rectangle]:
    """The upright boxes on the tile; an untrained head turns some inside out."""
    given = np.asarray(column.boxes[index], float).reshape(-1, 2, 2) * scale  # (N, 4) -> (N, 2, 2)
    ordered = np.sort(given, axis=1).reshape(-1, 4)
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in ordered.tolist()]
