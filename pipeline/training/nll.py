"""Discrete-time survival: bins from the training events, and their negative log-likelihood.

Bins are 1-based: bin Y holds times in [edge_{Y-1}, edge_Y) with edge_0 = 0 and the last edge
infinite. The network's outputs are logits of the hazards h_1 … h_K.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

# Raised when predictions of survival tasks with this loss change. 1: the first.
VERSION = 1


def fit_edges(time: np.ndarray, event: np.ndarray, bins: int) -> np.ndarray:
    """Inner bin edges: quantiles of the times of the events.

    Args:
        time: float (n,), of the training part only.
        event: bool (n,).
        bins: wished number of bins; tied quantiles give fewer.

    Returns:
        float64 (K - 1,), strictly ascending and positive. With fewer events than bins all times
        count.
    """
    used = time[event] if event.sum() >= bins else time
    inner = np.quantile(used, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(inner[inner > 0]).astype(np.float64)


def to_bins(time: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """1-based bins, int64 (n,): 1 + number of inner edges at or before the time."""
    return 1 + np.searchsorted(edges, time, side="right").astype(np.int64)


def nll_loss(logits: Tensor, bins: Tensor, event: Tensor, alpha: float) -> Tensor:
    """Negative log-likelihood of hazards (Zadeh and Schmid 2020), censored cases down-weighted.

    With S_k = prod_{j<=k} (1 - h_j): an event in bin Y costs -log S_{Y-1} - log h_Y, censoring in
    bin Y costs -log S_Y, times 1 - alpha. Computed from logits, so that nothing is clamped.

    Args:
        logits: (B, K).
        bins: int64 (B,), 1 … K.
        event: (B,), 1 = event.
        alpha: 0 weighs both alike, 1 ignores censored cases.
    """
    event = event.to(logits.dtype)
    log_hazard, log_pass = F.logsigmoid(logits), F.logsigmoid(-logits)
    log_survival = F.pad(log_pass.cumsum(1), (1, 0))  # column k is log S_k
    before = log_survival.gather(1, (bins - 1)[:, None]).squeeze(1)
    through = log_survival.gather(1, bins[:, None]).squeeze(1)
    at = log_hazard.gather(1, (bins - 1)[:, None]).squeeze(1)
    cost = -event * (before + at) - (1 - alpha) * (1 - event) * through
    return cost.mean()


def constant_logits(bins: np.ndarray, event: np.ndarray, count: int, alpha: float) -> np.ndarray:
    """The hazards' logits, the same for every case, with the least loss: float64 (count,).

    Setting the derivative of the loss to zero gives h_k = E_k / (E_k + E_{>k} + (1 - α) C_{>=k})
    with events E and censored C by bin; half an event is added so that logits stay finite.
    """
    k = np.arange(1, count + 1)
    happened = event > 0.5
    events = ((bins[:, None] == k) & happened[:, None]).sum(0) + 0.5
    later = ((bins[:, None] > k) & happened[:, None]).sum(0) + 0.5
    censored = ((bins[:, None] >= k) & ~happened[:, None]).sum(0)
    return np.log(events / (later + (1 - alpha) * censored))


def survival(logits: Tensor) -> Tensor:
    """S_1 … S_K: the probability of living past each bin. (B, K)."""
    return F.logsigmoid(-logits).cumsum(1).exp()


def risk(logits: Tensor) -> Tensor:
    """(B,): minus the sum of S_k, higher = worse."""
    return -survival(logits).sum(1)
