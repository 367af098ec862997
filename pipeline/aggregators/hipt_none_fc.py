"""HIPT without transformers (Chen et al. 2022): gated attention over patches, then over regions."""

from __future__ import annotations

from torch import Tensor, nn

from pipeline.aggregators.abmil import AttentionScore
from pipeline.aggregators.base import Aggregator, Bag, full_mask, masked_softmax, weighted_sum
from pipeline.aggregators.regions import check_places, in_regions
from pipeline.config.registry import register
from pipeline.config.section import Fraction, Width

# Raised when predictions with this aggregator change. 1: the first.
VERSION = 1


@register("hipt_none_fc")
class HIPTAttention(Aggregator):
    """Gated attention over each region's patches, then over regions, then two layers.

    Where rows are vectors of regions the first attention has nothing to choose from.

    Source: Chen et al. 2022, "Scaling vision transformers to gigapixel images via hierarchical
    self-supervised learning", `HIPT_None_FC`.

    Args:
        dim: feature width.
        out: outputs.
        patches: rows are regions of 256 patches each (teacher hipt_vit4k, pooling patches).
        d_model: width of all layers; published: 256.
        dropout: in all of them.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        patches: bool = False,
        d_model: Width = 256,
        dropout: Fraction = 0.25,
    ) -> None:
        super().__init__()
        self.local = self._layer(check_places(dim) if patches else dim, d_model, dropout)
        self.local_attention = self._attention(d_model, dropout) if patches else None
        self.whole = self._layer(d_model, d_model, dropout)
        self.attention = self._attention(d_model, dropout)
        self.head = nn.Sequential(self._layer(d_model, d_model, dropout), nn.Linear(d_model, out))

    @staticmethod
    def _layer(before: int, after: int, dropout: float) -> nn.Sequential:
        return nn.Sequential(nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout))

    @staticmethod
    def _attention(width: int, dropout: float) -> AttentionScore:
        return AttentionScore(width, width, gated=True, dropout=dropout, bias=True)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        if self.local_attention is not None:
            real = ~mask
            rows, missing = in_regions(x[real])
            h = self.local(rows)
            pooled = weighted_sum(masked_softmax(self.local_attention(h), missing), h)
            regions = x.new_zeros(*x.shape[:2], pooled.shape[-1])
            regions[real] = pooled.to(regions.dtype)
        else:
            regions = self.local(x)
        h = self.whole(regions)
        weights = masked_softmax(self.attention(h), mask)
        return Bag(self.head(weighted_sum(weights, h)), weights)
