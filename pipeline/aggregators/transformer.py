"""A small transformer over tiles with a class token."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.attention import TransformerLayer
from pipeline.aggregators.base import Aggregator, Bag, full_mask
from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Width

# Raised when predictions with this aggregator change. 1: the first.
VERSION = 1


@register("transformer")
class Transformer(Aggregator):
    """Embed, prepend a class token, pre-norm layers, LayerNorm, linear head on the class token.

    Source: Wagner et al. 2023, "Transformer-based biomarker prediction from colorectal cancer
    histology": a transformer over tiles in place of attention pooling.

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of the tokens.
        dropout: in the layers.
        layers: number of transformer layers.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        d_model: Width = 128,
        dropout: Fraction = 0.25,
        layers: Count = 2,
    ) -> None:
        super().__init__()
        heads = 4 if d_model % 4 == 0 else 1
        self.embed = nn.Sequential(nn.Linear(dim, d_model), nn.ReLU())
        self.token = nn.Parameter(torch.zeros(1, 1, d_model))
        nn.init.normal_(self.token, std=0.02)
        self.layers = nn.ModuleList(
            TransformerLayer(d_model, heads, 2 * d_model, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        h = torch.cat([self.token.expand(len(x), -1, -1), self.embed(x)], dim=1)
        mask = torch.cat([mask.new_zeros(len(x), 1), mask], dim=1)
        scores = mask.new_zeros(mask.shape, dtype=x.dtype)
        for layer in self.layers:
            assert isinstance(layer, TransformerLayer)
            scores = layer.attended(h, mask)
            h = layer(h, mask)
        return Bag(self.head(self.norm(h[:, 0])), scores[:, 1:])
