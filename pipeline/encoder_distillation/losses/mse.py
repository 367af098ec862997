"""The squared difference."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def loss(answer: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared differences; of standardised targets, the unexplained variance.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", for
    features instead of logits.

    Args:
        answer: (B, D) of the student.
        target: (B, D), standardised.
    """
    return F.mse_loss(answer.float(), target.float())
