"""Export a checkpoint to ONNX: written aside, checked, compared with torch on pictures, and only then put in place."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.transformers.onnx_model import OnnxModel
from torch import nn
from ultralytics import YOLO
from ultralytics.utils import ASSETS, LOGGER

from ima_yolo.errors import IMAError

from .measure import check_parity
from .metadata import GraphKind, Metadata
from .parity import Difference
from .reference import check_checkpoint, copy_in_float
from .samples import in_bands
from .session import first_line, open_session, session_metadata
from .settings import FP16_SCHEMES, check_export_args, find_target, read_images
from .sources import READ_AS

SAMPLES = (ASSETS / "bus.jpg", ASSETS / "zidane.jpg")
"""Photos inside the ultralytics package, for comparing where the user names none."""

METADATA_KEYS = ("task", "names", "stride", "imgsz", "head", "end2end", "args")
"""Metadata without which a reader would have to guess what the graph gives."""


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how near to torch it is.

    Attributes:
        path: The ONNX file.
        size: Its bytes.
        imgsz: Height and width of the network input in pixels.
        kind: What the graph gives.
        max_box_difference: Largest difference of a box coordinate to torch, in pixels of the network input.
        max_score_difference: Largest difference of a score to torch.
        max_other_difference: The same of masks, keypoints and maps, as a share of their largest value; 0 without.
        images: Pictures compared.
    """

    path: Path
    size: int
    imgsz: tuple[int, int]
    kind: GraphKind
    max_box_difference: float
    max_score_difference: float
    max_other_difference: float
    images: int


def export_onnx(
    model: str | Path,
    output: Path | None = None,
    images: Sequence[Path] | None = None,
    **ultralytics_export_args: Any,
) -> ExportReport:
    """Export a checkpoint to an ONNX file that gives what the checkpoint gives.

    Nothing is put in place before the checker, the metadata and the comparison have passed; an earlier file stays.

    Args:
        model: An Ultralytics checkpoint (.pt) of any task but classify; it is not changed.
        output: File or folder to write, None for beside the checkpoint.
        images: Pictures to compare on, None for the two photos of the ultralytics package.
        **ultralytics_export_args: As in `yolo export format=onnx`: imgsz, nms, dynamic, quantize=16 and others.

    Returns:
        The report; its figures are logged too.

    Raises:
        IMAError: The checkpoint or a setting cannot be used, Ultralytics could not export it, or the graph failed a
            check.
    """
    source, channels = check_checkpoint(model)
    args = check_export_args(ultralytics_export_args)
    target = find_target(source, output)
    pictures = _photos(channels) if images is None else read_images(images, channels)
    with _folder_beside(target) as folder:
        torch_model, graph = _write_graph(source, folder, args)
        metadata = _check_graph(graph, source)
        difference = check_parity(torch_model, graph, metadata, args, pictures, source)
        os.replace(graph, target)
    return _report(target, metadata, difference, len(pictures))


def _photos(channels: int) -> list[np.ndarray]:
    """The two photos of the ultralytics package, (H, W, `channels`) uint8 each."""
    if channels in READ_AS:
        return read_images(SAMPLES, channels)
    return [in_bands(photo, channels) for photo in read_images(SAMPLES)]


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A temporary folder on the target's own file system, so that putting the file in place is one rename."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".ima-export-", dir=target.parent)
    except OSError as error:
        raise IMAError(f"output={target}: its folder cannot be written to ({error.strerror})") from error
    with folder as name:
        yield Path(name)


def _write_graph(source: Path, folder: Path, args: dict[str, Any]) -> tuple[nn.Module, Path]:
    """Let Ultralytics export a copy of the checkpoint; gives the loaded torch model and the file it wrote."""
    copy = folder / source.name
    try:
        if copy_in_float(source, copy):  # the exporter writes beside the checkpoint
            LOGGER.info(f"{source} was trained with quantize=8: its weights are exported in float")
        with _quiet():
            yolo = YOLO(copy)
            graph = Path(yolo.export(format="onnx", **args))
    except Exception as error:  # the exporter raises many types, SyntaxError and AssertionError among them
        raise IMAError(f"model={source}: Ultralytics could not export it ({first_line(error)})") from error
    if args.get("quantize") in FP16_SCHEMES:
        _sort_nodes(graph)
    return yolo.model, graph


def _sort_nodes(graph: Path) -> None:
    """Bring a graph's nodes into the order that ONNX demands; the conversion to fp16 appends its casts at the end."""
    model = onnx.load(str(graph))
    OnnxModel(model).topological_sort()
    onnx.save(model, str(graph))


def _check_graph(graph: Path, source: Path) -> Metadata:
    """Run ONNX's checker and read the metadata back as the runtime will."""
    try:
        onnx.checker.check_model(str(graph), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise IMAError(f"model={source}: the exported graph is not valid ONNX ({first_line(error)})") from error
    session = open_session(graph)
    missing = [key for key in METADATA_KEYS if key not in session.get_modelmeta().custom_metadata_map]
    if missing:
        raise IMAError(f"model={source}: the exported graph lacks metadata ({', '.join(missing)})")
    return session_metadata(session, str(source))


def _report(target: Path, metadata: Metadata, difference: Difference, images: int) -> ExportReport:
    """Put the figures together and log them."""
    size = target.stat().st_size
    side = "x".join(str(pixels) for pixels in metadata.imgsz)
    LOGGER.info(
        f"ONNX: {target} ({size / 1e6:.1f} MB, {side} px, {metadata.kind.value} outputs). "
        f"Largest differences to torch on {images} pictures: {difference.text()}"
    )
    found = (difference.box, difference.score, difference.other)
    return ExportReport(target, size, metadata.imgsz, metadata.kind, *found, images)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ultralytics' warnings but not its lines about paths, which would name the temporary folder."""
    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)
