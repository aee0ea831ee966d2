"""The page: one row an image, one column a source, with headers and a legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from ima_yolo.errors import IMAError
from ima_yolo.pictures.column import Column
from ima_yolo.pictures.tile import INK, PAGE, WIDTH, Colour, class_colours, draw_tile, font, open_image

MARGIN, GAP, HEADER, LEGEND_LINE = 28, 14, 62, 30
GREY = (112, 118, 126)


def legend_places(names: Iterable[str], width: int) -> list[tuple[int, int, str]]:
    """(x, line, name) of each legend entry, wrapped to the width."""
    places, x, line = [], 0, 0
    for name in names:
        advance = 46 + round(font(15).getlength(name))
        if x and x + advance > width:
            x, line = 0, line + 1
        places.append((x, line, name))
        x += advance
    return places


def _draw_headers(draw: ImageDraw.ImageDraw, columns: Sequence[Column]) -> None:
    middle = MARGIN + (12 if any(column.subtitle for column in columns) else 26)
    for index, column in enumerate(columns):
        x = MARGIN + index * (WIDTH + GAP)
        draw.text((x, middle), column.title, INK, font(21, bold=True), anchor="lm")
        draw.text((x, middle + 25), column.subtitle, GREY, font(15), anchor="lm")


def _draw_legend(
    draw: ImageDraw.ImageDraw, places: Sequence[tuple[int, int, str]], colours: Mapping[str, Colour], top: int
) -> None:
    for x, line, name in places:
        middle = top + line * LEGEND_LINE + LEGEND_LINE // 2
        draw.rounded_rectangle((MARGIN + x, middle - 8, MARGIN + x + 16, middle + 8), 4, fill=colours[name])
        draw.text((MARGIN + x + 24, middle), name, INK, font(15), anchor="lm")


def _page(
    rows: Sequence[Sequence[Image.Image]], columns: Sequence[Column], colours: Mapping[str, Colour]
) -> Image.Image:
    """Put headers, tiles and legend together."""
    inner = len(columns) * (WIDTH + GAP) - GAP
    seen = {name for column in columns for name in column.seen()}
    places = legend_places([name for name in colours if name in seen], inner)
    legend = LEGEND_LINE * (1 + places[-1][1]) + GAP if places else 0
    height = 2 * MARGIN + HEADER + sum(row[0].height + GAP for row in rows) - GAP + legend
    page = Image.new("RGB", (inner + 2 * MARGIN, height), PAGE)
    draw = ImageDraw.Draw(page)
    top = MARGIN + HEADER
    _draw_headers(draw, columns)
    for row in rows:
        for index, tile in enumerate(row):
            page.paste(tile, (MARGIN + index * (WIDTH + GAP), top))
        top += row[0].height + GAP
    _draw_legend(draw, places, colours, top)
    return page


def side_by_side(images: Sequence[Path], columns: Sequence[Column], output: Path) -> Path:
    """Draw one row an image and one column a source, with headers and a legend, and write it as a PNG.

    Args:
        images: image files of any size; each tile is WIDTH pixels wide.
        columns: what is drawn over them, left to right.
        output: the PNG to write, all or nothing; its folder is made.

    Returns:
        `output`.

    Raises:
        IMAError: there is nothing to draw, a column lacks an image, an image cannot be read or the file not written.
    """
    if not images or not columns:
        raise IMAError("a picture needs at least one image and one column")
    for column in columns:
        column.check(len(images))
    colours = class_colours(name for column in columns for _, name in sorted(column.names.items()))
    rows = []
    for index, path in enumerate(images):
        image = open_image(path)
        rows.append([draw_tile(image, column, index, colours) for column in columns])
    output, part = Path(output), Path(output).with_suffix(".part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _page(rows, columns, colours).save(part, format="PNG")
        part.replace(output)
    except OSError as error:
        raise IMAError(f"{output}: cannot write the picture there ({error.strerror}); name a writable place") from error
    return output
