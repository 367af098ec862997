"""HIPT's local-global model (Chen et al. 2022): a transformer over each region's patches, then one
over the regions."""

from __future__ import annotations

from torch import Tensor

from pipeline.aggregators.base import Aggregator, Bag, full_mask
from pipeline.aggregators.hiptmil import HIPTMIL
from pipeline.aggregators.regions import check_places, in_regions
from pipeline.config.registry import register
from pipeline.config.section import Fraction, Width
from pipeline.encoders.slide_level.hipt import RegionTransformer

# Raised when predictions with this aggregator change. 1: the first.
VERSION = 1

REGION_WIDTH = 192


@register("hipt_lgp_fc")
class HIPTLocalGlobal(Aggregator):
    """ViT4K over each region's patches, then two transformer layers over regions, gated attention.

    Rows are vectors of regions (ViT4K pretrained and frozen, as published), or with `patches`
    whole regions, of which ViT4K is trained, too.

    Source: Chen et al. 2022, "Scaling vision transformers to gigapixel images via hierarchical
    self-supervised learning", `HIPT_LGP_FC`.

    Args:
        dim: feature width.
        out: outputs.
        patches: rows are regions of 256 patches each (teacher hipt_vit4k, pooling patches).
        d_model: width of layers and head; published: 192.
        dropout: in all of them.
    """

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        patches: bool = False,
        d_model: Width = 192,
        dropout: Fraction = 0.25,
    ) -> None:
        super().__init__()
        self.local = None
        if patches:
            self.local = RegionTransformer(check_places(dim), REGION_WIDTH)
            dim = REGION_WIDTH
        self.whole = HIPTMIL(dim, out, d_model=d_model, dropout=dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        if self.local is not None:
            real = ~mask
            rows, missing = in_regions(x[real])
            vectors = x.new_zeros(*x.shape[:2], REGION_WIDTH)
            vectors[real] = self.local(rows, missing).to(vectors.dtype)
            x = vectors
        return self.whole(x, mask)
