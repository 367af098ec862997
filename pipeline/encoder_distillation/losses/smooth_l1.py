"""The difference, square where it is small and linear where it is large."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def loss(answer: Tensor, target: Tensor) -> Tensor:
    """Smooth L1, as a mean over tiles and dimensions; it turns linear at 1, one deviation.

    Source: Girshick 2015, "Fast R-CNN"; for the features of teachers, Ranzinger et al. 2024,
    "AM-RADIO: Agglomerative vision foundation model".

    Args:
        answer: (B, D) of the student.
        target: (B, D), standardised.
    """
    return F.smooth_l1_loss(answer.float(), target.float())
