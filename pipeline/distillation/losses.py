"""Distillation losses: cosine and Huber, and the divergence from a soft prediction."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def feature_loss(student: Tensor, target: Tensor, present: Tensor, delta: float) -> Tensor:
    """(1 - cosine) + Huber, mean over the cases that have the teacher.

    Args:
        student, target: (B, k).
        present: bool (B,).
        delta: where Huber turns from square to linear.

    Returns:
        a scalar; 0 when no case has the teacher.
    """
    weights = present.to(student.dtype)
    total = weights.sum().clamp(min=1)
    apart = 1 - F.cosine_similarity(student, target, dim=1)
    huber = F.huber_loss(student, target, reduction="none", delta=delta).mean(1)
    return ((apart + huber) * weights).sum() / total
