"""SimCLR."""

from __future__ import annotations

from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Positive, Width
from pipeline.pretraining.methods.base import Method, Moment, full_precision

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("simclr")
class SimCLR(Method):
    """Two views of a tile attract each other and repel all others of the batch:
    L = -log exp(cos(zᵢ, zⱼ)/τ) / Σₖ exp(cos(zᵢ, zₖ)/τ), k over all other views, also those of other
    processes.

    Source: Chen et al. 2020, "A simple framework for contrastive learning of visual
    representations".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection.
        hidden: width inside the projector.
        temperature: τ.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 128,
        hidden: Width = 2048,
        temperature: Positive = 0.2,
    ) -> None:
        super().__init__(backbone)
        self.projector = SimCLRProjectionHead(dim, hidden, projection)
        self.contrast = NTXentLoss(temperature, gather_distributed=True)

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        first, second = (self.projector(self.backbone(view)) for view in views)
        with full_precision(first):
            loss = self.contrast(first.float(), second.float())
        return {"loss": loss}
