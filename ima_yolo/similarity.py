"""How alike the features of two networks are, and how far apart their distributions lie, without any training."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 64


def linear_cka(first: Tensor, second: Tensor) -> float:
    r"""Linear centred kernel alignment of two sets of features of the same samples.

    .. math:: CKA(X, Y) = \|Y^T X\|_F^2 \, / \, (\|X^T X\|_F \, \|Y^T Y\|_F)

    with columns centred. It is 1 for features that differ by a rotation and a scale, and needs no common channels,
    which two networks trained apart do not have. Reference: Kornblith et al., arXiv 1905.00414, eq. 3.

    Args:
        first: (P, C_1), P samples, for example the cells of maps.
        second: (P, C_2).

    Returns:
        A number in [0, 1]; 0 where either side is constant.
    """
    first, second = (values.double() - values.double().mean(0) for values in (first, second))
    cross = (second.T @ first).square().sum()
    own = (first.T @ first).norm() * (second.T @ second).norm()
    return float(cross / own) if own > 1e-12 else 0.0


def divergence(first: Tensor, second: Tensor) -> float:
    r"""Jensen-Shannon divergence of the values of two sets of features, in bits.

    .. math:: JS(P, Q) = \tfrac12 KL(P \| M) + \tfrac12 KL(Q \| M), \quad M = (P + Q) / 2

    over a histogram of all values, so that it asks for no common channels. Reference: Lin, IEEE Trans. Inf. Theory 37
    (1991) 145.

    Args:
        first: Any shape.
        second: Any shape.

    Returns:
        A number in [0, 1]: 0 for equal histograms, 1 where no value is shared.
    """
    values = [features.detach().flatten().double() for features in (first, second)]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if high <= low:
        return 0.0
    shares = [torch.histc(v, BINS, low, high) / v.numel() for v in values]
    middle = (shares[0] + shares[1]) / 2
    parts = [torch.where(share > 0, share * (share / middle.clamp(min=1e-300)).log2(), 0.0).sum() for share in shares]
    return float((parts[0] + parts[1]) / 2)


def cells(features: Tensor) -> Tensor:
    """Turn maps into samples: (B, C, H, W) -> (B*H*W, C)."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)
