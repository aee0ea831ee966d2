"""A teacher's forward pass by ONNX Runtime: on a CPU its convolutions are faster than PyTorch's, and the same."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils import LOGGER

from ima_yolo.errors import one_line
from ima_yolo.features import tap

OPSET = 17
TOLERANCE = 1e-3  # greatest difference from PyTorch, as a share of a map's standard deviation; seen: 1e-4
TOLERANCE_SAID = 1e-2  # the same for scores and boxes, which lie at the end of more layers
DYNAMIC = (0, 2, 3)  # axes: batch, and height and width, or cells


class Graph:
    """An Ultralytics model up to its neck, or with what its head says of every cell, as an ONNX Runtime session.

    Args:
        model: Frozen and fused, on the CPU.
        head: Its last layer.
        levels: How many maps feed the head.
        channels: Of its input.
        said: Whether the head belongs to it.
        side: Of the image that it is traced with, in pixels: any multiple of the strides.

    Raises:
        Exception: Of any kind, where the model cannot be traced.
    """

    def __init__(self, model: nn.Module, head: nn.Module, levels: int, channels: int, said: bool, side: int) -> None:
        """Trace the model and load the graph."""
        import onnxruntime  # here, since most trainings never need its 17 MB

        names = [f"map{level}" for level in range(levels)] + (["scores", "boxes"] if said else [])
        self._levels = levels
        # in evaluation, as the model is: the exporter gives every layer back the mode that it found the outermost in
        traced, file = _Traced(model, head, levels, said).eval(), io.BytesIO()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the tracer, about shapes that are constant here
            torch.onnx.export(
                traced,
                (torch.zeros(2, channels, side, side),),
                file,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=["images"],
                output_names=names,
                dynamic_axes={name: list(DYNAMIC) for name in ("images", *names)},
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors alone
        self._session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> tuple[list[Tensor], dict[str, Any] | None]:
        """Look at (B, C, H, W) images; return the maps, and what the head returned if it belongs to the graph."""
        found = [torch.from_numpy(part) for part in self._session.run(None, {"images": images.contiguous().numpy()})]
        maps, said = found[: self._levels], found[self._levels :]
        return maps, {"scores": said[0], "boxes": said[1], "feats": maps} if said else None


class _Traced(nn.Module):
    """The part of a model that is traced, as a function from images to tensors."""

    def __init__(self, model: nn.Module, head: nn.Module, levels: int, said: bool) -> None:
        super().__init__()
        self._model, self._head, self._levels, self._said = model, (head,), levels, said

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the maps, then scores and boxes if they were asked for."""
        with tap(self._head[0], self._levels, stop=not self._said) as caught:
            self._model(images)
        maps = tuple(caught.maps or [])
        if not self._said:
            return maps
        raw = caught.output[1] if isinstance(caught.output, tuple) else caught.output
        raw = raw.get("one2many", raw)
        return (*maps, raw["scores"], raw["boxes"])


def is_the_same(graph: Graph, model: nn.Module, head: nn.Module, levels: int, said: bool, shape: Sequence[int]) -> bool:
    """Whether a graph shows and says the same as its model, on noise of a shape, (B, C, H, W)."""
    images = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = _Traced(model, head, levels, said).eval()(images)
    maps, output = graph(images)
    found = (*maps, output["scores"], output["boxes"]) if output else tuple(maps)
    allowed = [TOLERANCE] * levels + [TOLERANCE_SAID] * (len(own) - levels)
    return len(own) == len(found) and all(
        first.shape == second.shape and float((first - second).abs().max()) <= share * max(float(first.std()), 1e-6)
        for first, second, share in zip(own, found, allowed, strict=True)
    )


def build_graph(
    name: str, model: nn.Module, head: nn.Module, levels: int, channels: int, said: bool, multiple: int
) -> Graph | None:
    """Build a graph and hold it against its model, at a size that it was not traced with.

    Args:
        name: The teacher's, for the log.
        model: Frozen and fused, on the CPU.
        head: Its last layer.
        levels: How many maps feed the head.
        channels: Of its input.
        said: Whether the head belongs to it.
        multiple: Of pixels, that sides of its images are.

    Returns:
        The graph; None, with a line of log, where there is none that says the same.
    """
    try:
        graph = Graph(model, head, levels, channels, said, 4 * multiple)
        sound = is_the_same(graph, model, head, levels, said, (1, channels, 2 * multiple, 3 * multiple))
        reason = "" if sound else "its graph shows other maps"
    except Exception as error:  # of any kind: the exporter's are many
        sound, reason = False, one_line(error)
    if not sound:
        LOGGER.info(f"{name} runs by PyTorch: ONNX Runtime cannot take it ({reason[:200]})")
        return None
    return graph
