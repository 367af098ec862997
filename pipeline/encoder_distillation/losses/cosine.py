"""The angle between a student's answer and a teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def loss(answer: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine, as a mean over the tiles.

    Source: Ranzinger et al. 2024, "AM-RADIO: Agglomerative vision foundation model".

    Args:
        answer: (B, D) of the student.
        target: (B, D), standardised.
    """
    return (1 - F.cosine_similarity(answer.float(), target.float(), dim=1)).mean()
