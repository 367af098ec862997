"""Attention-based MIL (Ilse, Tomczak, Welling 2018), plain and gated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Bag, Weighing, full_mask, masked_softmax, mlp, weighted_sum


class AttentionScore(nn.Module):
    """w·tanh(Vh), or gated w·(tanh(Vh) ⊙ sigmoid(Uh)), for each instance: (B, N).

    Args:
        width: of h.
        hidden: of V and U.
        gated: equation 9 instead of 8 of the paper.
        dropout: on the hidden units.
        bias: whether w has a bias (it cancels in the softmax).
    """

    def __init__(
        self, width: int, hidden: int, gated: bool, dropout: float = 0.0, bias: bool = False
    ) -> None:
        super().__init__()
        self.tanh = nn.Linear(width, hidden)
        self.sigmoid = nn.Linear(width, hidden) if gated else None
        self.drop = nn.Dropout(dropout)
        self.score = nn.Linear(hidden, 1, bias=bias)

    def forward(self, h: Tensor) -> Tensor:
        hidden = torch.tanh(self.tanh(h))
        if self.sigmoid is not None:
            hidden = hidden * torch.sigmoid(self.sigmoid(h))
        return self.score(self.drop(hidden)).squeeze(-1)


class ABMIL(Weighing):
    """Embed, weigh by attention, sum, classify.

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of embedding and attention.
        dropout: of the pooled vector; with `faithful` of every tile's embedding.
        gated: gated attention.
        faithful: the published baselines. Plain: the single-teacher model of Shazam (ReLU
            embedding, tile-wise dropout, linear head). Gated: the Phikon benchmark's (no activation
            after the embedding, head d_model–128–64–out).
    """

    def __init__(
        self,
        dim: int,
        out: int,
        d_model: int = 128,
        dropout: float = 0.25,
        gated: bool = False,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        plain = faithful and not gated
        linear = faithful and gated
        tile_dropout = dropout if plain else 0.0
        embed: list[nn.Module] = [nn.Linear(dim, d_model)]
        if not linear:
            embed += [nn.ReLU(), nn.Dropout(tile_dropout)]
        self.embed = nn.Sequential(*embed)
        hidden = d_model if faithful else max(d_model // 2, 8)
        self.attention = AttentionScore(d_model, hidden, gated, tile_dropout, bias=linear)
        self.drop = nn.Dropout(0.0 if faithful else dropout)
        self.head: nn.Module = mlp([d_model, 128, 64, out]) if linear else nn.Linear(d_model, out)

    def forward(self, x: Tensor, mask: Tensor | None = None, emphasis: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        h = self.embed(x)
        scores = self.attention(h)
        weights = masked_softmax(scores if emphasis is None else scores + emphasis, mask)
        pooled = weighted_sum(weights, h)
        return Bag(self.head(self.drop(pooled)), weights)
