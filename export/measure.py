"""The parity test: a torch model and its exported graph on the same pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ima_yolo.errors import IMAError

from .embedded_nms import threshold_for, with_threshold
from .metadata import GraphKind, Metadata
from .parity import FP16, FP32, Difference, compare
from .preprocess import Letterbox
from .reference import Reference, build_reference
from .session import INPUT_TYPES, open_session

DEFAULTS: dict[str, Any] = {"conf": 0.25, "iou": 0.7, "max_det": 300, "agnostic_nms": False, "batch": 1}
"""Ultralytics' own values of the settings that go into a graph."""


def check_parity(
    model: nn.Module,
    graph: Path,
    metadata: Metadata,
    args: Mapping[str, Any],
    pictures: Sequence[np.ndarray],
    source: Path,
) -> Difference:
    """Compare a graph with the torch model that it came from.

    Args:
        model: The torch model; its head's settings are changed.
        graph: The exported file.
        metadata: Its metadata.
        args: The arguments of the export.
        pictures: (H, W, C) uint8 each, with the channels of the metadata, BGR where they are 3.
        source: The checkpoint, for error messages.

    Returns:
        The largest differences.

    Raises:
        IMAError: They are larger than the tolerance.
    """
    settings = {key: default if args.get(key) is None else args[key] for key, default in DEFAULTS.items()}
    blobs = [np.repeat(_blob(picture, metadata), settings["batch"], axis=0) for picture in pictures]
    run_graph = _graph_runner(graph)
    if metadata.kind is GraphKind.NMS_EMBEDDED and not any(run_graph(blob)[0].any() for blob in blobs):
        run_graph, settings = _more_rows(model, graph, metadata, settings, blobs)
    run_torch = build_reference(model, metadata, settings)
    tolerance = FP16 if metadata.args.get("quantize") == 16 else FP32
    conf = settings["conf"] if metadata.kind is GraphKind.NMS_EMBEDDED else 0.0
    difference = Difference()
    for blob in blobs:
        difference = difference.merge(compare(run_torch(blob), run_graph(blob), metadata, tolerance.edge, conf))
    if not difference.within(tolerance.limit):
        raise IMAError(
            f"model={source}: the exported graph differs from torch by {difference.text()}; "
            f"allowed are {tolerance.limit.text()}. No file was written"
        )
    return difference


def _more_rows(
    model: nn.Module, graph: Path, metadata: Metadata, settings: dict[str, Any], blobs: Sequence[np.ndarray]
) -> tuple[Reference, dict[str, Any]]:
    """Lower the threshold inside a graph that finds nothing in the pictures, and the reference's with it."""
    everything = build_reference(model, metadata, {**settings, "conf": 0.0})
    lower = threshold_for(everything(blobs[0])[0][0])
    changed = with_threshold(graph, settings["conf"], lower)
    return _graph_runner(changed), {**settings, "conf": lower}


def _graph_runner(graph: Path | bytes) -> Reference:
    session = open_session(graph)
    entry = session.get_inputs()[0]
    return lambda blob: session.run(None, {entry.name: blob.astype(INPUT_TYPES[entry.type], copy=False)})


def _blob(picture: np.ndarray, metadata: Metadata) -> np.ndarray:
    return Letterbox.fit((picture.shape[0], picture.shape[1]), metadata.imgsz).blob(picture)
