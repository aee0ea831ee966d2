"""The torch side of an export: a checkpoint loaded without running its pickle, and the outputs its graph must give."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.engine.exporter import NMSModel
from ultralytics.utils.checks import check_model_file_from_stem

from ima_yolo.errors import IMAError
from ima_yolo.host import load_model, local_file, task_of

from .metadata import GraphKind, Metadata

Reference = Callable[[np.ndarray], list[np.ndarray]]
"""Network input (B, C, H, W) float32 -> the outputs that the graph must give, in its order."""


def check_checkpoint(name: str | Path) -> tuple[Path, int]:
    """Load a checkpoint with safe loading and see that it can be exported; nothing in it is run.

    Args:
        name: A file, or the name of a checkpoint that Ultralytics publishes, which is downloaded.

    Returns:
        The file, and the channels of the pictures that it takes.

    Raises:
        IMAError: No such file, not a checkpoint, foreign code in it, or a classifier.
    """
    path = str(check_model_file_from_stem(str(name)))
    model, _ = load_model(path, "model")
    if task_of(model) == "classify":
        raise IMAError(f"model={path}: a classification model, expected one that finds objects or pixels")
    return local_file(path) or Path(path), int(model.yaml.get("channels", 3))


def copy_in_float(source: Path, copy: Path) -> bool:
    """Copy a checkpoint without what imitated int8 in its training, so that its graph is in float and calibrated here.

    Ultralytics would write the imitation into the graph, which rounds at convolutions alone, within ranges that were
    found before the training.

    Args:
        source: A checkpoint that `check_checkpoint` lets through.
        copy: The file to write.

    Returns:
        Whether there was an imitation to leave out.
    """
    _, checkpoint = load_model(source, "model")
    if not checkpoint.get("modelopt"):
        shutil.copyfile(source, copy)
        return False
    torch.save({**checkpoint, "modelopt": None}, copy)
    return True


def build_reference(model: nn.Module, metadata: Metadata, settings: Mapping[str, Any]) -> Reference:
    """Set a torch model to give what its exported graph gives, unfused and untraced.

    Args:
        model: The loaded Ultralytics model; its head's settings are changed.
        metadata: The exported graph's metadata.
        settings: The export's `conf`, `iou`, `max_det`, `agnostic_nms` and `batch`.

    Returns:
        A function from a network input to the expected outputs.
    """
    model.eval().float().requires_grad_(False)
    _set_head(model, metadata, settings)
    network: Any = model
    if metadata.kind is GraphKind.NMS_EMBEDDED:
        network = NMSModel(model, SimpleNamespace(**settings, format="onnx", dynamic=False, opset=None, quantize=None))

    def run(blob: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            outputs = network(torch.from_numpy(blob))
        return [output.numpy() for output in (outputs if isinstance(outputs, (tuple, list)) else [outputs])]

    return run


def _set_head(model: Any, metadata: Metadata, settings: Mapping[str, Any]) -> None:
    """Choose the head and the form of its outputs as Ultralytics' exporter does."""
    if hasattr(model, "end2end"):
        model.end2end = metadata.end2end
    for module in model.modules():
        if not hasattr(module, "export") or not hasattr(module, "format"):
            continue
        module.export, module.format = True, "onnx"
        if hasattr(module, "max_det"):
            module.max_det, module.agnostic_nms = settings["max_det"], settings["agnostic_nms"]
            module.xyxy = metadata.kind is GraphKind.NMS_EMBEDDED
            module.dynamic, module.shape = False, None
