"""A case as one vector: statistics of its tiles, which a linear model reads."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.aggregators.base import masked_mean

LEAST_VARIANCE = 1e-12  # below it the square root has no derivative to speak of


def mean(x: Tensor, mask: Tensor, emphasis: Tensor | None) -> Tensor:
    """The mean over a case's tiles.

    Args:
        x: (B, N, d), scaled features.
        mask: bool (B, N), True = padding.
        emphasis: (B, N) or None, as `Batch.emphasis`.

    Returns:
        (B, d).
    """
    return masked_mean(x, mask, emphasis)


def mean_and_deviation(x: Tensor, mask: Tensor, emphasis: Tensor | None) -> Tensor:
    """The mean and the standard deviation over a case's tiles.

    Args:
        x: (B, N, d), scaled features.
        mask: bool (B, N), True = padding.
        emphasis: (B, N) or None, as `Batch.emphasis`.

    Returns:
        (B, 2 d), the means and then the deviations; 0 for the deviation of a single tile.
    """
    centre = masked_mean(x, mask, emphasis)
    variance = masked_mean(x.square(), mask, emphasis) - centre.square()
    deviation = variance.clamp(min=LEAST_VARIANCE).sqrt()
    return torch.cat([centre, deviation], dim=1)


SUMMARIES = {"mean": mean, "mean_deviation": mean_and_deviation}
PARTS = {"mean": 1, "mean_deviation": 2}  # vectors of the features' width
