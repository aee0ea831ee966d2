"""The labels of a batch: those of a part of it, and where the objects are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ima_yolo.masks import Regions
from ima_yolo.teachers import TeacherOutput


def some_images(batch: dict[str, Any], chosen: Tensor) -> dict[str, Any]:
    """A part of a batch, with its labels.

    Args:
        batch: Ultralytics' batch; images without labels stay as they are.
        chosen: Indices of images, in their new order.
    """
    part = {**batch, "img": batch["img"][chosen]}
    if batch.get("semantic_mask") is not None:
        return {**part, "semantic_mask": batch["semantic_mask"][chosen]}
    places = chosen.new_full((len(batch["img"]),), -1)
    places[chosen] = torch.arange(len(chosen), device=chosen.device)
    index = places[batch["batch_idx"].view(-1).long().to(chosen.device)]
    kept = index >= 0
    labels: dict[str, Any] = {key: batch[key][kept] for key in ("bboxes", "cls") if key in batch}
    return {**part, **labels, "batch_idx": index[kept]}


def regions_of(batch: dict[str, Any], seen: TeacherOutput) -> Regions:
    """Objects of a batch in pixels: the teacher's where it was asked for them, else the labels."""
    confidence = seen.confidence or {}
    if seen.boxes is not None:
        return Regions(seen.boxes, confidence)
    if batch.get("semantic_mask") is not None:
        return Regions(batch["img"].new_zeros(0, 5), confidence, batch["semantic_mask"])
    return Regions(boxes_of(batch), confidence)


def boxes_of(batch: dict[str, Any]) -> Tensor:
    """The labelled boxes, (R, 5): image index, x1, y1, x2, y2 in pixels of the images."""
    height, width = batch["img"].shape[2:]
    labels = batch["bboxes"] * batch["bboxes"].new_tensor(
        [width, height, width, height, 1.0][: batch["bboxes"].shape[1]]
    )
    centre, size = labels[:, :2], labels[:, 2:4]
    if labels.shape[1] == 5:  # turned boxes: the upright ones around them
        cosine, sine = labels[:, 4:].cos().abs(), labels[:, 4:].sin().abs()
        size = torch.cat([size[:, :1] * cosine + size[:, 1:] * sine, size[:, :1] * sine + size[:, 1:] * cosine], dim=1)
    index = batch["batch_idx"].view(-1, 1).to(centre)
    return torch.cat([index, centre - size / 2, centre + size / 2], dim=1)
