"""The mean of a distillation loss over cases and pairs of teacher and level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Cost = Callable[[Tensor, Tensor, Tensor], Tensor]


def feature_loss(
    student: Tensor,
    target: Tensor,
    present: Tensor,
    cost: Cost,
    widths: Tensor | None = None,
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Mean over the cases that have a teacher, then over the pairs: a scalar.

    A mean, so that its weight says the same for two teachers at one level and five at three; or a
    sum over the pairs, as published for v1.

    Args:
        student: (B, P, K), for each pair of teacher and level what the student says of it.
        target: (B, P, K), what it should say.
        present: bool (B, P), whether the case has the teacher. A pair that no case has counts as 0.
        cost: a registered loss: of student, target and the numbers that a pair uses, (B, P).
        widths: int (P,), how many of the K numbers a pair uses (the rest are 0); a pair that uses
            none is left out. None: all.
        reduction: over the pairs.
    """
    pairs, width = student.shape[1:]
    if widths is None:
        widths = torch.full((pairs,), width, device=student.device)
    present = present & (widths > 0)
    weights = present.to(student.dtype)
    weights = weights / weights.sum(0).clamp(min=1)
    each = (cost(student, target, widths) * weights).sum(0)
    return each.sum() if reduction == "sum" else each.sum() / (widths > 0).sum().clamp(min=1)
