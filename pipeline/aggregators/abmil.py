"""Attention-based MIL (Ilse, Tomczak, Welling 2018), plain and gated."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Bag, Weighing, full_mask, masked_softmax, mlp, weighted_sum
from pipeline.config.registry import register
from pipeline.config.section import Fraction, Width

# Raised when predictions with these aggregators change. 1: the first.
VERSION = 1


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


class AttentionPool(Weighing):
    """Embed, weigh by attention, sum, classify.

    Args:
        embed: of a tile.
        attention: the score of an embedded tile.
        drop: of the pooled vector.
        head: the pooled vector's outputs.
    """

    def __init__(
        self, embed: nn.Sequential, attention: AttentionScore, drop: float, head: nn.Module
    ) -> None:
        super().__init__()
        self.embed = embed
        self.attention = attention
        self.drop = nn.Dropout(drop)
        self.head = head

    def forward(self, x: Tensor, mask: Tensor | None = None, emphasis: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        h = self.embed(x)
        scores = self.attention(h)
        weights = masked_softmax(scores if emphasis is None else scores + emphasis, mask)
        pooled = weighted_sum(weights, h)
        return Bag(self.head(self.drop(pooled)), weights)


@register("abmil")
class ABMIL(AttentionPool):
    """Attention pooling: tiles are embedded, weighed by w·tanh(Vh), summed and classified.

    Source: Ilse, Tomczak, Welling 2018, "Attention-based deep multiple instance learning",
    equation 8.

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of the embedding.
        dropout: of the pooled vector; with `faithful` of every tile's embedding.
        faithful: Shazam's published single-teacher model: attention of width d_model, tile-wise
            dropout.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        d_model: Width = 128,
        dropout: Fraction = 0.25,
        faithful: bool = False,
    ) -> None:
        of_tiles = dropout if faithful else 0.0
        hidden = d_model if faithful else hidden_width(d_model)
        super().__init__(
            nn.Sequential(nn.Linear(dim, d_model), nn.ReLU(), nn.Dropout(of_tiles)),
            AttentionScore(d_model, hidden, False, of_tiles),
            0.0 if faithful else dropout,
            nn.Linear(d_model, out),
        )


@register("gated_abmil", published=("dropout",))
class GatedABMIL(AttentionPool):
    """Gated attention pooling: tiles are weighed by w·(tanh(Vh) ⊙ sigmoid(Uh)).

    Source: Ilse, Tomczak, Welling 2018, "Attention-based deep multiple instance learning",
    equation 9.

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of the embedding.
        dropout: of the pooled vector.
        faithful: the Phikon benchmark's: no activation after the embedding, attention of width
            d_model, head d_model–128–64–out.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        d_model: Width = 128,
        dropout: Fraction = 0.25,
        faithful: bool = False,
    ) -> None:
        if faithful:
            super().__init__(
                nn.Sequential(nn.Linear(dim, d_model)),
                AttentionScore(d_model, d_model, gated=True, bias=True),
                0.0,
                mlp([d_model, 128, 64, out]),
            )
        else:
            super().__init__(
                nn.Sequential(nn.Linear(dim, d_model), nn.ReLU()),
                AttentionScore(d_model, hidden_width(d_model), gated=True),
                dropout,
                nn.Linear(d_model, out),
            )


def hidden_width(width: int) -> int:
    """Of the attention net, for embeddings of a width."""
    return max(width // 2, 8)
