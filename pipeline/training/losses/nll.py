"""Discrete-time survival: bins from the training events, and their negative log-likelihood.

Bins are 1-based: bin Y holds times in [edge_{Y-1}, edge_Y) with edge_0 = 0 and the last edge
infinite. The network's outputs are logits of the hazards h_1 … h_K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config.registry import register
from pipeline.config.section import Fraction
from pipeline.contracts.labels import Labels
from pipeline.training.metrics import concordance
from pipeline.training.survival import times_and_events

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

    Args:
        bins: int64 (n,), 1 … K.
        event: float (n,), 1 = event.
        count: how many bins there are, K.
        alpha: as in `nll_loss`.
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


@register("nll", task="survival")
class NllHead:
    """Hazards of K bins of time and their negative log-likelihood. Targets: time, event, bin.

    Source: Zadeh and Schmid 2020, "Bias in cross-entropy-based training of deep survival networks".

    Args:
        edges: inner edges of the bins.
        bins: how many time bins, of the training events; tied times give fewer.
        alpha: 0 weighs events and censored cases alike, 1 ignores censored cases.
    """

    metric_name = "C-index"

    kind: ClassVar[str] = "nll"
    needed: ClassVar[int | None] = None

    def __init__(
        self,
        edges: Sequence[float],
        *,
        bins: Annotated[int, Field(ge=2, le=30)] = 4,
        alpha: Fraction = 0.4,
    ) -> None:
        self.edges, self.bins, self.alpha = tuple(edges), bins, alpha

    @property
    def outputs(self) -> int:
        return len(self.edges) + 1

    @classmethod
    def fit(cls, labels: Labels, train: np.ndarray, *, bins: int, alpha: float) -> NllHead:
        """Bins whose edges are quantiles of the training events.

        Args:
            labels: of all cases.
            train: rows to fit on.
            bins: wished number of bins.
            alpha: as in `nll_loss`.
        """
        time, event = times_and_events(labels)
        edges = fit_edges(time[train], event[train], bins)
        return cls([float(edge) for edge in edges], bins=bins, alpha=alpha)

    def targets(self, labels: Labels) -> np.ndarray:
        time, event = times_and_events(labels)
        bins = to_bins(time, np.array(self.edges))
        return np.stack([time, event, bins], axis=1).astype(np.float32)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return nll_loss(out, y[:, 2].long(), y[:, 1], self.alpha)

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        return concordance(self.score(out), y[:, 0], y[:, 1])

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y[:, 1].astype(np.int64)

    def classes_of(self, y: Tensor) -> Tensor | None:
        return None

    def score(self, out: np.ndarray) -> np.ndarray:
        return risk(torch.from_numpy(out).double()).numpy()

    def lead(self, out: Tensor) -> Tensor:
        return risk(out)

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        lived = survival(torch.from_numpy(out).double()).numpy()
        edges = {f"surv_{j + 1}": lived[:, j] for j in range(len(self.edges))}
        return {
            "risk": self.score(out),
            "time": y[:, 0].astype(np.float64),
            "event": y[:, 1].astype(np.int64),
            **edges,
        }

    def facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "bin_edges": list(self.edges),
            "bins": self.bins,
            "alpha": self.alpha,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> NllHead:
        edges = facts["bin_edges"]
        return cls(edges, bins=facts.get("bins", len(edges) + 1), alpha=facts["alpha"])
