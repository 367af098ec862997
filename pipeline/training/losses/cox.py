"""Cox partial likelihood on a batch, with Breslow's or Efron's treatment of tied times."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.config.registry import register

# Raised when predictions of survival tasks with this loss change. 1: the first.
VERSION = 1


@register("cox", task="survival")
def cox(
    risk: Tensor, time: Tensor, event: Tensor, *, ties: Literal["breslow", "efron"] = "efron"
) -> Tensor:
    """Negative log partial likelihood divided by the number of events.

    The risk set of an event holds every case whose time is not smaller, in whatever order the batch
    stands; sums of exponentials are taken in the log domain, so that large risks do not overflow.
    Of d events at one time, Efron's l-th (l = 0 … d-1) sees the risk set less l/d of the weight of
    those d; Breslow's all see the whole set.

    Source: Cox 1975, "Partial likelihood"; Breslow 1974 and Efron 1977 for ties.

    Args:
        risk: (B,), log relative hazard.
        time: (B,).
        event: (B,), 1 = event.
        ties: how events at the same time are counted, by Efron's or by Breslow's approximation.

    Raises:
        ValueError: no event. A zero would train nothing and look like success: the sampler must
            not make such a batch.
    """
    happened = event > 0.5
    if not bool(happened.any()):
        raise ValueError("a Cox batch without an event: the sampler must give each batch one")
    risk = risk.to(torch.float32)
    lowest = torch.finfo(risk.dtype).min
    own, when = risk[happened], time[happened]
    at_risk = time[None, :] >= when[:, None]  # (events, B)
    log_sets = risk[None, :].masked_fill(~at_risk, lowest).logsumexp(1)
    if ties == "efron":
        tied = when[None, :] == when[:, None]  # (events, events)
        log_tied = own[None, :].masked_fill(~tied, lowest).logsumexp(1)
        place = (tied & _earlier(len(own), own.device)).sum(1)
        fraction = place / tied.sum(1)
        log_sets = log_sets + torch.log1p(-fraction * (log_tied - log_sets).exp())
    return (log_sets - own).mean()


def _earlier(n: int, device: torch.device) -> Tensor:
    """bool (n, n): column before row."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril(-1)
