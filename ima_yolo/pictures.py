"""Pictures of detections: a grid of images by sources (ground truth, teacher, student), side by side in one PNG."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ima_yolo.errors import IMAError

TILE = 400  # px, width of one image in the grid
_MARGIN, _GAP, _HEADER, _LEGEND_LINE = 28, 14, 62, 30
_PAGE, _INK, _GREY = (255, 255, 255), (28, 32, 38), (112, 118, 126)
Colour = tuple[int, int, int]
Rectangle = tuple[float, float, float, float]
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


@dataclass(frozen=True)
class Column:
    """One column of the grid: what one source says about every image.

    Attributes:
        title: the header, in ASCII.
        boxes: for each image (N, 4) xyxy in pixels of that image.
        classes: for each image (N,) class indices, keys of `names`.
        names: class index to name; colours go by name, so sources with other indices stay comparable.
        scores: for each image (N,) confidences 0-1, or None where there are none, as in ground truth.
        subtitle: a line below the title, for instance the model's accuracy.
    """

    title: str
    boxes: Sequence[NDArray[Any]]
    classes: Sequence[NDArray[Any]]
    names: Mapping[int, str]
    scores: Sequence[NDArray[Any]] | None = None
    subtitle: str = ""


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # Pillow's own font is a bitmap on some builds; matplotlib, which ultralytics needs, ships DejaVu everywhere.
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


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
    return _INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else _PAGE


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    # Once ultralytics is imported, PIL asks for its HEIF plugin before it gives an unknown format up.
    except (OSError, ImportError) as error:
        raise IMAError(f"{path}: expected an image that can be read; check the file") from error


def _shared_area(a: Rectangle, b: Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _tag_place(box: Rectangle, extent: tuple[int, int], taken: Sequence[Rectangle], tile: tuple[int, int]) -> Rectangle:
    """The place in the tile at a corner of the box, outside or inside, where a tag covers the least of those taken."""
    (x0, y0, x1, y1), (width, height) = box, extent
    left, right = x0 - 1, x1 + 1 - width
    corners = [(x, y) for y in (y0 - height, y1, y0, y1 - height) for x in (left, right)]
    places = []
    for x, y in corners:
        x, y = min(max(x, 0), tile[0] - width), min(max(y, 0), tile[1] - height)
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: sum(_shared_area(place, other) for other in taken))


def _draw_detections(tile: Image.Image, detections: Sequence[tuple[Rectangle, str, Colour]]) -> None:
    """Draw (box, text, colour) on the tile: first all outlines, then the tags, so that no outline crosses a text."""
    draw = ImageDraw.Draw(tile)
    for box, _, colour in detections:
        draw.rounded_rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), 4, outline=_INK, width=4)
        draw.rounded_rectangle(box, 3, outline=colour, width=2)
    taken: list[Rectangle] = []
    for box, text, colour in detections:
        extent = round(_font(12).getlength(text)) + 8, 17
        place = _tag_place(box, extent, taken, tile.size)
        taken.append(place)
        draw.rounded_rectangle(place, 3, fill=colour)
        draw.text((place[0] + 4, place[1] + extent[1] / 2), text, _ink_on(colour), _font(12), anchor="lm")


def _draw_tile(image: Image.Image, column: Column, index: int, colours: Mapping[str, Colour]) -> Image.Image:
    """One image with one column's boxes, TILE pixels wide; small images are enlarged before anything is drawn."""
    scale = TILE / image.width
    tile = image.resize((TILE, max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
    detections = []
    for row, box in enumerate(np.asarray(column.boxes[index], float).reshape(-1, 4) * scale):
        name = column.names[int(column.classes[index][row])]
        text = name if column.scores is None else f"{name} {float(column.scores[index][row]):.2f}"
        low, high = (
            np.minimum(box[:2], box[2:]),
            np.maximum(box[:2], box[2:]),
        )  # an untrained head turns some inside out
        detections.append(((low[0], low[1], high[0], high[1]), text, colours[name]))
    _draw_detections(tile, detections)
    return tile


def _legend_places(names: Iterable[str], width: int) -> list[tuple[int, int, str]]:
    """(x, line, name) of each legend entry, wrapped to the width."""
    places, x, line = [], 0, 0
    for name in names:
        advance = 46 + round(_font(15).getlength(name))
        if x and x + advance > width:
            x, line = 0, line + 1
        places.append((x, line, name))
        x += advance
    return places


def _draw_headers(draw: ImageDraw.ImageDraw, columns: Sequence[Column]) -> None:
    middle = _MARGIN + (12 if any(column.subtitle for column in columns) else 26)
    for index, column in enumerate(columns):
        x = _MARGIN + index * (TILE + _GAP)
        draw.text((x, middle), column.title, _INK, _font(21, bold=True), anchor="lm")
        draw.text((x, middle + 25), column.subtitle, _GREY, _font(15), anchor="lm")


def _draw_legend(
    draw: ImageDraw.ImageDraw, places: Sequence[tuple[int, int, str]], colours: Mapping[str, Colour], top: int
) -> None:
    for x, line, name in places:
        middle = top + line * _LEGEND_LINE + _LEGEND_LINE // 2
        draw.rounded_rectangle((_MARGIN + x, middle - 8, _MARGIN + x + 16, middle + 8), 4, fill=colours[name])
        draw.text((_MARGIN + x + 24, middle), name, _INK, _font(15), anchor="lm")


def _page(
    rows: Sequence[Sequence[Image.Image]], columns: Sequence[Column], colours: Mapping[str, Colour]
) -> Image.Image:
    """Put headers, tiles and legend together."""
    inner = len(columns) * (TILE + _GAP) - _GAP
    seen = {c.names[int(kind)] for c in columns for kinds in c.classes for kind in kinds}
    places = _legend_places([name for name in colours if name in seen], inner)
    legend = _LEGEND_LINE * (1 + places[-1][1]) + _GAP if places else 0
    height = 2 * _MARGIN + _HEADER + sum(row[0].height + _GAP for row in rows) - _GAP + legend
    page = Image.new("RGB", (inner + 2 * _MARGIN, height), _PAGE)
    draw = ImageDraw.Draw(page)
    top = _MARGIN + _HEADER
    _draw_headers(draw, columns)
    for row in rows:
        for index, tile in enumerate(row):
            page.paste(tile, (_MARGIN + index * (TILE + _GAP), top))
        top += row[0].height + _GAP
    _draw_legend(draw, places, colours, top)
    return page


def _check(images: Sequence[Path], columns: Sequence[Column]) -> None:
    if not images or not columns:
        raise IMAError("a picture needs at least one image and one column")
    for column in columns:
        counts = {len(column.boxes), len(column.classes), len(images if column.scores is None else column.scores)}
        if counts != {len(images)}:
            raise IMAError(
                f"column {column.title!r}: expected boxes, classes and scores for each of {len(images)} images"
            )


def side_by_side(images: Sequence[Path], columns: Sequence[Column], output: Path) -> Path:
    """Draw one row an image and one column a source, with headers and a legend, and write it as a PNG.

    Args:
        images: image files of any size; each tile is TILE pixels wide.
        columns: what is drawn over them, left to right.
        output: the PNG to write, all or nothing; its folder is made.

    Returns:
        `output`.

    Raises:
        IMAError: there is nothing to draw, a column lacks an image, an image cannot be read or the file not written.
    """
    _check(images, columns)
    colours = class_colours(name for column in columns for _, name in sorted(column.names.items()))
    rows = []
    for index, path in enumerate(images):
        image = _open(path)
        rows.append([_draw_tile(image, column, index, colours) for column in columns])
    output, part = Path(output), Path(output).with_suffix(".part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _page(rows, columns, colours).save(part, format="PNG")
        part.replace(output)
    except OSError as error:
        raise IMAError(f"{output}: cannot write the picture there ({error.strerror}); name a writable place") from error
    return output


def _label_path(image: Path) -> Path:
    """The Ultralytics rule: the last folder called images becomes labels, the suffix .txt."""
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_labels(path: Path, size: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Boxes (N, 4) xyxy in pixels and classes (N,); a row longer than a box is a polygon, and its box is taken."""
    boxes, classes = [], []
    for line in path.read_text().splitlines() if path.is_file() else []:
        kind, *values = line.split()
        points = np.array(values, float).reshape(-1, 2)
        if len(points) == 2:
            points = np.stack([points[0] - points[1] / 2, points[0] + points[1] / 2])
        boxes.append(np.concatenate([points.min(0) * size, points.max(0) * size]))
        classes.append(int(float(kind)))
    return np.array(boxes, float).reshape(-1, 4), np.array(classes, int)


def ground_truth_column(
    images: Sequence[Path], names: Mapping[int, str], title: str = "Ground truth", single_cls: bool = False
) -> Column:
    """The column of the YOLO label files beside `images`, with class names by index.

    Images without a label file, or with a class that has no name, have no boxes, as in Ultralytics.

    Args:
        images: image files.
        names: class index to name.
        title: the header.
        single_cls: whether every object counts as class 0.
    """
    labels = [_read_labels(_label_path(Path(path)), _open(path).size) for path in images]
    if single_cls:
        labels = [(boxes, np.zeros_like(classes)) for boxes, classes in labels]
    known = [(b, c) if set(c.tolist()) <= names.keys() else (b[:0], c[:0]) for b, c in labels]
    return Column(title, [boxes for boxes, _ in known], [classes for _, classes in known], names)


def prediction_column(
    title: str,
    model_path: Path,
    images: Sequence[Path],
    imgsz: int,
    conf: float = 0.25,
    device: str = "cpu",
    task: str = "detect",
) -> Column:
    """The column of a model's detections; of turned boxes the upright ones around them.

    Args:
        title: the header.
        model_path: a checkpoint or exported model that Ultralytics can load.
        images: image files.
        imgsz: side in pixels to which images are letterboxed.
        conf: detections below this confidence (0-1) are left out.
        device: "cpu", "cuda" or any other device string of Ultralytics.
        task: of an exported model; a checkpoint knows its own.
    """
    from ultralytics import YOLO

    model = YOLO(str(model_path), task=task)
    results = model.predict(
        [str(path) for path in images], imgsz=imgsz, conf=conf, device=device, verbose=False, save=False
    )
    boxes = [(result.obb if result.boxes is None else result.boxes).cpu().numpy() for result in results]
    return Column(title, [b.xyxy for b in boxes], [b.cls for b in boxes], results[0].names, [b.conf for b in boxes])
