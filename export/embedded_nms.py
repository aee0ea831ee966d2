"""The score threshold inside a graph with embedded NMS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ima_yolo.errors import IMAError

ROWS = 20
"""Detections to let through: enough to compare, few enough that near-equal scores hardly ever meet in NMS."""


def threshold_for(rows: np.ndarray) -> float:
    """A threshold that lets the best rows through and lies between two scores.

    Args:
        rows: (N, 6 + extra) of a graph whose threshold is 0, best first, zero rows as padding.
    """
    scores = rows[rows[:, 4] > 0, 4][: ROWS + 1]
    return float(scores[-2:].mean()) if len(scores) > 1 else 0.0


def with_threshold(path: Path, conf: float, lower: float) -> bytes:
    """A copy of a graph whose score threshold is `lower` in place of `conf`.

    A model that finds nothing in the pictures at hand would pass any comparison of its detections. With a lower
    threshold, the weights and the NMS of the very file that is shipped are compared.

    Raises:
        IMAError: The graph does not compare its scores with `conf` in exactly one place.
    """
    model = onnx.load(str(path))
    compared = {name for node in model.graph.node if node.op_type == "Greater" for name in node.input}
    found = [
        tensor
        for tensor in model.graph.initializer
        if tensor.name in compared and np.allclose(numpy_helper.to_array(tensor), conf, rtol=1e-3)
    ]
    if len(found) != 1:
        raise IMAError("nms=True: the model finds nothing in the pictures it is compared on; name others by images=")
    value = np.full_like(numpy_helper.to_array(found[0]), lower)
    found[0].CopyFrom(numpy_helper.from_array(value, found[0].name))
    return model.SerializeToString()
