"""Untrained models of every task whose outputs vary as a trained one's do, for comparing one reader with another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from torch import nn
from ultralytics import RTDETR, YOLO

from ima_yolo.export.preprocess import Letterbox

SMALL_RTDETR = {
    "backbone": [[-1, 1, "Conv", [c, 3, 2]] for c in (16, 32, 32, 64, 64)],
    "head": [[[2, 3, 4], 1, "RTDETRDecoder", ["nc", 32, 40, 4, 4, 2]]],
}
"""An RT-DETR of five convolutions, 32 channels and 40 queries; strides 8, 16, 32."""


def crops_of(photos: Sequence[Path], imgsz: int) -> np.ndarray:
    """A batch of parts of photos at the network's size, (B, 3, imgsz, imgsz) float32."""
    images = [cv2.imread(str(path)) for path in photos]
    crops = [crop for image in images for y in range(0, 600, 150) for crop in (image[y:], image[y : y + 150, ::2])]
    return np.concatenate([Letterbox.fit(crop.shape[:2], (imgsz, imgsz)).blob(crop) for crop in crops])


def enliven(model: Any, batch: np.ndarray, bias: float = -2.0) -> None:
    """Give an untrained model the batch statistics of real pictures, and scores that spread.

    Without that its maps in evaluation are almost constant, and any two readers of them agree.

    Args:
        model: Its modules are changed.
        batch: Pictures, (B, 3, H, W) float32.
        bias: Of the class scores before the sigmoid: the lower, the fewer detections.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    head = model.model[-1]
    with torch.no_grad():
        model.train()
        model.predict(torch.from_numpy(batch))
        contrastive = [part for part in getattr(head, "cv4", ()) if hasattr(part, "logit_scale")]  # YOLO-World
        for part in contrastive:
            part.bias.fill_(bias + 2.0)
            part.logit_scale.fill_(2.5)
        branches = () if contrastive else (*getattr(head, "cv3", ()), *(getattr(head, "one2one_cv3", None) or ()))
        for branch in branches:
            branch[-1].weight *= 2
            branch[-1].bias.fill_(bias)
        for scores in getattr(head, "dec_score_head", ()):
            scores.weight *= 20
            scores.bias.fill_(-1.0)


def lively_checkpoint(path: Path, name: str, names: Mapping[int, str], batch: np.ndarray, bias: float = -2.0) -> Path:
    """Write a checkpoint.

    Args:
        path: The file to write.
        name: An Ultralytics architecture such as "yolo26n-seg", or "rtdetr" for `SMALL_RTDETR`.
        names: Class index to class name.
        batch: Pictures to take batch statistics from, (B, 3, H, W) float32.
        bias: As in `enliven`.
    """
    config = path.parent / "rtdetr-small.yaml"
    config.write_text(yaml.safe_dump({"nc": len(names), **SMALL_RTDETR}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yolo = RTDETR(config) if name == "rtdetr" else YOLO(f"{name}.yaml", verbose=False)
        model = type(yolo.model)(yolo.model.yaml, nc=len(names), verbose=False)
    enliven(model, batch, bias)
    model.names, model.args, model.task = dict(names), yolo.model.args, yolo.task
    yolo.model = model.eval()
    yolo.save(path)
    config.unlink()
    return path
