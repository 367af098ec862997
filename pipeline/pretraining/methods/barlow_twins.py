"""Barlow Twins."""

from __future__ import annotations

from lightly.loss import BarlowTwinsLoss
from lightly.models.modules.heads import BarlowTwinsProjectionHead
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Positive, Width
from pipeline.pretraining.methods.base import Method, Moment, full_precision, gathered

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("barlow_twins")
class BarlowTwins(Method):
    """The cross-correlation C of two views' projections over a batch becomes the identity:
    L = Σᵢ (1 - Cᵢᵢ)² + λ Σᵢ≠ⱼ Cᵢⱼ², with the batches of all processes together.

    Source: Zbontar et al. 2021, "Barlow Twins: self-supervised learning via redundancy reduction".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection, and inside the projector.
        redundancy: λ.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 8192,
        redundancy: Positive = 0.005,
    ) -> None:
        super().__init__(backbone)
        self.projector = BarlowTwinsProjectionHead(dim, projection, projection)
        self.correlation = BarlowTwinsLoss(redundancy)

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        first, second = (self.projector(self.backbone(view)) for view in views)
        with full_precision(first):
            loss = self.correlation(gathered(first.float()), gathered(second.float()))
        return {"loss": loss}
