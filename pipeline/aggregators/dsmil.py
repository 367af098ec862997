"""Dual-stream MIL (Li, Li, Eliceiri 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Aggregator, Bag, full_mask, masked_softmax, mlp
from pipeline.config.registry import register
from pipeline.config.section import Fraction, Width

# Raised when predictions with this aggregator change. 1: the first. 2: `faithful` does not divide
# the likeness of tiles by the root of its width, as published.
VERSION = 2


@register("dsmil", published=("d_model", "dropout"))
class DSMIL(Aggregator):
    """Mean of two streams: the best tile's score, and a bag pooled by likeness to that tile.

    Both streams run once per output, so that each class has its own critical tile.

    Source: Li, Li, Eliceiri 2021, "Dual-stream multiple instance learning network for whole slide
    image classification with self-supervised contrastive learning".

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of the embedding.
        dropout: of the pooled vector.
        faithful: the Phikon benchmark's: no projection, score, query and head nets of hidden widths
            200 and 100 with sigmoid, raw features pooled. Its value layer is never used; it is kept
            so that the parameter count is the published one. The likeness of two tiles is the
            product of their queries, which is otherwise divided by the root of their width.
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
        super().__init__()
        if faithful:
            self.embed: nn.Module = nn.Identity()
            self.score: nn.Module = mlp([dim, 200, 100, out], nn.Sigmoid)
            self.query: nn.Module = mlp([dim, 200, 100, 32], nn.Sigmoid)
            self.head: nn.Module = mlp([dim, 200, 100, 1], nn.Sigmoid)
            self.value: nn.Module | None = nn.Linear(dim, 32)
            self.scale = 1.0
        else:
            self.embed = nn.Sequential(nn.Linear(dim, d_model), nn.ReLU())
            self.score = nn.Linear(d_model, out)
            self.query = nn.Sequential(nn.Linear(d_model, max(d_model // 2, 8)), nn.Tanh())
            self.head = nn.Linear(d_model, 1)
            self.value = None
            self.scale = max(d_model // 2, 8) ** -0.5
        self.drop = nn.Dropout(0.0 if faithful else dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        h = self.embed(x)
        scores = self.score(h)  # (B, N, C)
        hidden = mask[..., None].expand_as(scores)
        best, critical = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).max(1)
        best = best.masked_fill(mask.all(1, keepdim=True), 0.0)
        queries = self.query(h)  # (B, N, q)
        of_best = queries.gather(1, critical[..., None].expand(-1, -1, queries.shape[2]))
        likeness = torch.bmm(queries, of_best.transpose(1, 2)) * self.scale
        weights = masked_softmax(likeness, hidden, dim=1)
        pooled = torch.bmm(weights.transpose(1, 2), h)  # (B, C, d)
        out = 0.5 * (best + self.head(self.drop(pooled)).squeeze(-1))
        return Bag(out, weights.mean(2))
