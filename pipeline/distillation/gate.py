"""Expert gating: how much each teacher counts for a case."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import masked_softmax


class Gate(nn.Module):
    """Weights of the teachers from all their tokens: (B, T), summing to 1 over those present.

    Args:
        teachers: T.
        width: of a token.
    """

    def __init__(self, teachers: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(teachers * width, width),
            nn.GELU(),
            nn.LayerNorm(width),
            nn.Linear(width, teachers),
        )

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Gate tokens (B, T, width); absent ones (bool (B, T) False) are seen as zeros."""
        seen = tokens.masked_fill(~present[..., None], 0.0)
        return masked_softmax(self.net(seen.flatten(1)), ~present)


def even(present: Tensor) -> Tensor:
    """The gate that is off: equal weights of the teachers present, (B, T)."""
    weights = present.to(torch.float32)
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


def drop(present: Tensor, rate: float) -> Tensor:
    """Teacher dropout: hide each teacher with probability `rate`, never a case's last one."""
    kept = present & (torch.rand(present.shape, device=present.device) >= rate)
    return torch.where(kept.any(1, keepdim=True), kept, present)
