"""HIPT's slide-level model (Chen et al. 2022): a transformer, then gated attention pooling."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.aggregators.abmil import AttentionScore
from pipeline.aggregators.attention import TransformerLayer
from pipeline.aggregators.base import Aggregator, Bag, full_mask, masked_softmax, weighted_sum
from pipeline.config.registry import register
from pipeline.config.section import Fraction, Width

# Raised when predictions with this aggregator change. 1: the first.
VERSION = 1

FAITHFUL_WIDTH = 192


@register("hiptmil", published=("d_model",))
class HIPTMIL(Aggregator):
    """Embed, two transformer layers (post-norm, three heads), gated attention, two-layer head.

    Unlike the Phikon benchmark's, the layers mask padding, so that a batch may hold several bags.

    Source: Filiot et al. 2023 (Phikon), HIPTMIL: the slide level of Chen et al. 2022, "Scaling
    vision transformers to gigapixel images via hierarchical self-supervised learning".

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of embedding, layers and head.
        dropout: in all of them.
        faithful: width 192 as published.
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
        width = FAITHFUL_WIDTH if faithful else d_model
        heads = 3 if width % 3 == 0 else 4 if width % 4 == 0 else 1
        self.embed = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Dropout(dropout))
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, width, dropout, pre_norm=False) for _ in range(2)
        )
        self.attention = AttentionScore(width, width, gated=True, dropout=dropout, bias=True)
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, out)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h, mask)
        weights = masked_softmax(self.attention(h), mask)
        return Bag(self.head(weighted_sum(weights, h)), weights)
