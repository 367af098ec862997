"""The distillation loss: cosine and Huber between what the student knows and what it is taught."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def feature_loss(
    student: Tensor,
    target: Tensor,
    present: Tensor,
    delta: float,
    widths: Tensor | None = None,
) -> Tensor:
    """(1 - cosine) + Huber; mean over the cases that have a teacher, then over the pairs.

    A mean, so that its weight says the same for two teachers at one level and five at three.

    Args:
        student, target: (B, P, K), for each pair of teacher and level.
        present: bool (B, P), whether the case has the teacher.
        delta: where Huber turns from square to linear.
        widths: (P,), how many of the K numbers a pair uses (the rest are 0); a pair that uses
            none is left out. None: all.

    Returns:
        a scalar; a pair that no case has counts as 0.
    """
    if widths is not None:
        present = present & (widths > 0)
    weights = present.to(student.dtype)
    weights = weights / weights.sum(0).clamp(min=1)
    apart = 1 - F.cosine_similarity(student, target, dim=-1)
    huber = F.huber_loss(student, target, reduction="none", delta=delta).sum(-1)
    huber = huber / (student.shape[-1] if widths is None else widths.clamp(min=1))
    each = ((apart + huber) * weights).sum(0)
    return each.mean() if widths is None else each.sum() / (widths > 0).sum().clamp(min=1)
