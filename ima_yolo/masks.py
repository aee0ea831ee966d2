"""Masks: random ones that hide part of the student, and object masks that say where the loss counts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Regions:
    """Where the objects of a batch are.

    Attributes:
        boxes: (R, 5) float: image index, x1, y1, x2, y2 in pixels of the network's input.
        confidence: Confidence of the teacher in [0, 1], one (B, 1, H, W) map a stride; empty unless asked for.
        classes: Class of each pixel, (B, H, W), 255 where it is not known; None where the labels are boxes.
    """

    boxes: Tensor
    confidence: dict[int, Tensor]
    classes: Tensor | None = None


def random_mask(
    batch: int, height: int, width: int, ratio: float, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draw a binary mask for each image, shared by all channels.

    M_ij = 0 where R_ij < zeta, else 1, with R_ij ~ U(0, 1) (Guo et al. 2025, instance mask distillation).

    Args:
        batch: B, number of images.
        height: H.
        width: W.
        ratio: zeta in [0, 1), the expected share of zeros.
        device: Where the mask is made; `generator` must live there too.
        generator: Source of randomness; the global one if None.

    Returns:
        (B, 1, H, W) float32 of zeros and ones.
    """
    noise = torch.rand(batch, 1, height, width, device=device, generator=generator)
    return (noise >= ratio).float()


def mask_spatial(features: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide random positions: the spatial reading of the paper's mask, as in MGD (arXiv 2205.01529).

    Args:
        features: (B, C, H, W).
        ratio: zeta in [0, 1).
        generator: Source of randomness on the device of `features`.

    Returns:
        (B, C, H, W), zero in all channels at the hidden positions.
    """
    batch, _, height, width = features.shape
    return features * random_mask(batch, height, width, ratio, features.device, generator).to(features.dtype)


def mask_frequency(features: Tensor, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide random frequency components: the reading that the paper's own words suggest ("frequency components").

    irfft2(rfft2(F) * M): the 2-D real Fourier transform of each channel, its half spectrum (H, W // 2 + 1) masked,
    transformed back. A real map's columns of lowest and highest frequency hold each wave twice, as conjugates; both are
    hidden or neither. Computed in float32, since half-precision transforms take only sizes that are powers of two.

    Args:
        features: (B, C, H, W).
        ratio: zeta in [0, 1).
        generator: Source of randomness on the device of `features`.

    Returns:
        (B, C, H, W) float32.
    """
    batch, _, height, width = features.shape
    spectrum = torch.fft.rfft2(features.float())  # (B, C, H, W) -> (B, C, H, W // 2 + 1)
    mask = random_mask(batch, height, spectrum.shape[-1], ratio, features.device, generator)
    rows = torch.arange(height, device=features.device)
    rows = torch.minimum(rows, (height - rows) % height)  # of a wave and its conjugate, the first
    for column in {0, width // 2} if width % 2 == 0 else {0}:
        mask[..., column] = mask[:, :, rows, column]
    return torch.fft.irfft2(spectrum * mask, s=(height, width))


def box_mask(boxes: Tensor, batch: int, height: int, width: int, stride: int) -> Tensor:
    """Mark the cells that a box overlaps, so that even the smallest object has a cell.

    Args:
        boxes: (R, 5) image index, x1, y1, x2, y2 in pixels.
        batch: B.
        height: H of the map, in cells.
        width: W of the map, in cells.
        stride: Pixels per cell.

    Returns:
        (B, 1, H, W) float32 of zeros and ones.
    """
    left = torch.arange(width, device=boxes.device) * stride
    top = torch.arange(height, device=boxes.device) * stride
    in_x = (boxes[:, 1:2] < left + stride) & (boxes[:, 3:4] > left)  # (R, W)
    in_y = (boxes[:, 2:3] < top + stride) & (boxes[:, 4:5] > top)  # (R, H)
    inside = (in_y[:, :, None] & in_x[:, None, :]).float()  # (R, H, W)
    marked = torch.zeros(batch, height, width, device=boxes.device)
    return marked.index_add_(0, boxes[:, 0].long(), inside).clamp_(max=1.0)[:, None]


def position_weights(
    source: str, regions: Regions, shape: tuple[int, int, int], stride: int, background: float
) -> Tensor | None:
    """Weight of each position in the loss, from the objects of the batch.

    Args:
        source: "none" (all alike), "gt" (inside the boxes of `regions`) or "teacher" (the teacher's confidence).
        regions: The objects.
        shape: (B, H, W) of the map.
        stride: Pixels per cell.
        background: Weight in [0, 1] of positions without an object; objects weigh 1.

    Returns:
        (B, 1, H, W) float32 in [background, 1], or None where all positions weigh the same.
    """
    if source == "none":
        return None
    batch, height, width = shape
    if source == "gt":
        inside = box_mask(regions.boxes, batch, height, width, stride)
    else:
        inside = regions.confidence[stride].float()
        if inside.shape[2:] != (height, width):
            inside = torch.nn.functional.interpolate(inside, size=(height, width), mode="bilinear", align_corners=False)
    return background + (1.0 - background) * inside


def go_on(rng: torch.Generator, state: Tensor) -> None:
    """Set a source of masks to a state that the first process of a training kept.

    The other processes draw masks of their own from there: they see other images.

    Args:
        rng: Of this process.
        state: On the CPU.
    """
    rng.set_state(state)
    number = distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
    if number:
        rng.manual_seed(int(torch.randint(2**31, (1,), generator=rng, device=rng.device)) + number)
