"""Ranking loss for survival: the order of events, without a model of their times."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.registry import register

# Raised when predictions of survival tasks with this loss change. 1: the first.
VERSION = 1


@register("ranking", task="survival")
def ranking(risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Mean over comparable pairs of log(1 + exp(risk of the later - risk of the earlier)).

    The logistic bound on the concordance index, smooth where the index is a step. A pair is
    comparable as in Harrell's index: the earlier time is an event; of equal times, one is an event
    and the other is not.

    Source: Raykar et al. 2007, "On ranking in survival analysis".

    Args:
        risk: (B,), higher = worse.
        time: (B,).
        event: (B,), 1 = event.

    Raises:
        ValueError: no event, as for a Cox batch. A batch with events but without a comparable pair
            (its events are its last times) gives a zero with a zero gradient.
    """
    happened = event > 0.5
    if not bool(happened.any()):
        raise ValueError("a ranking batch without an event: the sampler must give each batch one")
    risk = risk.to(torch.float32)
    earlier = time[:, None] < time[None, :]
    tied = (time[:, None] == time[None, :]) & ~happened[None, :]
    comparable = happened[:, None] & (earlier | tied)
    costs = F.softplus(risk[None, :] - risk[:, None])
    return (costs * comparable).sum() / comparable.sum().clamp(min=1)
