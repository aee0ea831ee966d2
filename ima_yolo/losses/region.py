"""Instance mask alignment where an instance is the region of one class, as in the paper's semantic segmentation."""

from __future__ import annotations

import torch
from torch import Tensor

from ima_yolo.align import EPS, of_mean_one
from ima_yolo.align import deflation as deflation_of

IGNORED = 255  # class of pixels whose label is not known
LEAST = 4  # cells: a smaller region has no spatial structure, and its standardization would turn noise into a target


def region_ids(classes: Tensor, size: tuple[int, int]) -> Tensor:
    """Number the regions of a batch: all cells of one class in one image are one.

    Args:
        classes: Class of each pixel, (B, H_0, W_0); 255 where it is not known.
        size: H and W of the map; a cell takes the class of the pixel at its middle.

    Returns:
        (B, H, W) int64, 0 to N - 1 in the regions, -1 in cells of no region or of one that has under 4 cells.
    """
    cells = torch.nn.functional.interpolate(classes[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
    image = torch.arange(len(cells), device=cells.device)[:, None, None]
    keys = torch.where(cells == IGNORED, -1, image * (IGNORED + 1) + cells)
    found, ids, counts = keys.unique(return_inverse=True, return_counts=True)
    kept = (counts >= LEAST) & (found >= 0)
    return torch.where(kept, kept.cumsum(0) - 1, -1)[ids]


def region_loss(
    student: Tensor,
    teacher: Tensor,
    ids: Tensor,
    standardized: str = "both",
    deflation: str = "weight",
    floor: float = 0.1,
) -> Tensor:
    r"""L_FMask over regions that need not be rectangles.

    .. math:: L = \frac{1}{N} \sum_n w_n \frac{1}{C |n|} \sum_{c, p \in n} (\hat F^T_{cp} - \gamma_n \hat F^S_{cp})^2

    with mean and variance of the instance standardization taken over the cells p of a region n. It equals `ima_loss`
    where each region is a whole image. Reference: Guo, Zhang, Liang, Sci Rep 15:32813 (2025), whose extension to
    semantic segmentation takes a region of one class for an instance; the rest as in `ima_yolo.losses.ima`.

    Args:
        student: Masked and restored student, (B, C, H, W).
        teacher: (B, C, H, W).
        ids: Region of each cell, (B, H, W), -1 for none.
        standardized: "both", "student" or "none".
        deflation: "weight", "shifted", "floor", "cosine" or "none".
        floor: Smallest gamma of ``deflation="floor"``.

    Returns:
        Scalar; 0, in the student's graph, where there is no region.
    """
    inside = ids >= 0
    if not bool(inside.any()):
        return student.sum() * 0.0
    index = ids[inside]
    count = torch.bincount(index).to(student.dtype)
    # (B, C, H, W) -> (B, H, W, C) -> (P, C), P cells in regions
    own, other = (features.permute(0, 2, 3, 1)[inside] for features in (student, teacher))
    if standardized != "none":
        own = _standardize(own, index, count)
    if standardized == "both":
        other = _standardize(other, index, count)
    weight = None
    if deflation != "none":
        sizes = _sum(own.square().sum(1), index, count) * _sum(other.square().sum(1), index, count)
        alpha = _sum((own * other).sum(1), index, count) / sizes.clamp(min=1e-16).sqrt()
        scale, weight = deflation_of(alpha, deflation, floor)
        own = own if scale is None else own * scale[index, None]
    by_region = _sum((other - own).square().mean(dim=1), index, count) / count
    return (by_region if weight is None else by_region * of_mean_one(weight)).mean()


def _sum(values: Tensor, index: Tensor, count: Tensor) -> Tensor:
    """Sum (P, ...) over the cells of each region, (N, ...)."""
    return values.new_zeros(len(count), *values.shape[1:]).index_add_(0, index, values)


def _standardize(values: Tensor, index: Tensor, count: Tensor) -> Tensor:
    """Zero mean and unit variance of each channel over each region, (P, C)."""
    centred = values - (_sum(values, index, count) / count[:, None])[index]
    variance = _sum(centred.square(), index, count) / count[:, None]
    return centred * torch.rsqrt(variance + EPS)[index]
