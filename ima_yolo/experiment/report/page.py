"""A report as files: one HTML page that needs nothing else, and Markdown with its figures beside it."""

from __future__ import annotations

import base64
import html
import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from ima_yolo.experiment.report.figures import Figure
from ima_yolo.experiment.report.measured import collect
from ima_yolo.experiment.report.parts import Section, Table
from ima_yolo.experiment.report.sections import sections
from ima_yolo.experiment.study import Study
from ima_yolo.experiment.tables import markdown_table
from ima_yolo.files import replacing

MIME = {"svg": "image/svg+xml", "jpeg": "image/jpeg"}


def write_report(study: Study, say: Callable[[str], None], pictures: bool = True) -> tuple[Path, Path]:
    """Measure what is missing and write `report.html` and `report.md` into the study's folder.

    Args:
        study: With or without its `runs/`.
        say: Receives a line for what could not be made.
        pictures: Whether images of the data are shown; without them, the report may go where the images may not.

    Returns:
        Both files.
    """
    measured = collect(study, say)
    content = sections(measured, say, pictures)
    page, text = study.folder / "report.html", study.folder / "report.md"
    with replacing(page) as partial:
        partial.write_text(as_html(study.title, content), encoding="utf-8")
    shutil.rmtree(study.folder / "figures", ignore_errors=True)
    for section in content:
        for figure in section.figures:
            with replacing(study.folder / "figures" / _file_name(figure)) as partial:
                partial.write_bytes(figure.content)
    with replacing(text) as partial:
        partial.write_text(as_markdown(study.title, content), encoding="utf-8")
    return page, text


def _file_name(figure: Figure) -> str:
    return f"{figure.name}.{'jpg' if figure.kind == 'jpeg' else figure.kind}"


def as_html(title: str, content: Sequence[Section]) -> str:
    """The report as one page, with its figures inside it."""
    template = files("ima_yolo.experiment.report").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["uri"] = _uri
    return environment.from_string(template).render(title=title, sections=content)


def _uri(figure: Figure) -> str:
    # As an image, a figure keeps its names to itself: several SVGs inside one page would share them.
    return f"data:{MIME[figure.kind]};base64,{base64.b64encode(figure.content).decode()}"


def as_markdown(title: str, content: Sequence[Section]) -> str:
    """The report as Markdown, with links to the figures."""
    parts = [f"# {title}"]
    for section in content:
        parts.append(f"## {section.title}")
        parts += list(section.text)
        if section.points:
            parts.append("\n".join(f"- {point}" for point in section.points))
        parts += [_markdown(table) for table in section.tables]
        parts += [f"![{figure.caption}](figures/{_file_name(figure)})" for figure in section.figures]
        if section.code:
            parts.append("\n".join(["```sh", *section.code, "```"]))
    return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    rows = [[html.escape(cell, quote=False).replace("|", "\\|") for cell in row] for row in table.rows]
    return markdown_table(table.heads, rows, table.right)
