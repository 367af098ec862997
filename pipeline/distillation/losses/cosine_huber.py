"""Cosine and Huber between what the student knows of a teacher's feature and the feature."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pipeline.config.registry import register
from pipeline.config.section import Positive

# Raised when predictions of students with this loss change. 1: the first.
VERSION = 1


@register("cosine_huber")
def cosine_huber(
    student: Tensor, target: Tensor, used: Tensor, *, huber_delta: Positive = 1.0
) -> Tensor:
    """One minus the cosine, plus Huber's loss, which is a mean over the numbers of a feature.

    Source: Shazam, the distillation of its published students; Huber 1964, "Robust estimation of a
    location parameter".

    Returns (B, P).

    Args:
        student: (B, P, K), for each pair of teacher and level what the student says of it.
        target: (B, P, K), what it should say.
        used: int (P,), how many of the K numbers a pair uses; the rest are 0 in both.
        huber_delta: where Huber turns from square to linear.
    """
    apart = 1 - F.cosine_similarity(student, target, dim=-1)
    huber = F.huber_loss(student, target, reduction="none", delta=huber_delta).sum(-1)
    return apart + huber / used.clamp(min=1)
