"""Squared error of standardised targets."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.config.registry import register

# Raised when predictions of regression tasks with this loss change. 1: the first.
VERSION = 1


@register("squared_error", task="regression")
def squared_error(out: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared differences.

    Source: Gauss 1809, the method of least squares.

    Args:
        out: (B, T), in units of each target's deviation in the training part.
        target: (B, T), likewise.
    """
    return F.mse_loss(out, target)
