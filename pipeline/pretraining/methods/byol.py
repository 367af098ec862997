"""BYOL."""

from __future__ import annotations

import torch
from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Fraction, Width
from pipeline.pretraining.methods.base import Moment, MomentumMethod, full_precision, teacher_of

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("byol")
class BYOL(MomentumMethod):
    """A student predicts the projection that its own moving average gives another view:
    L = 4 - 2 (cos(q(z₁), z'₂) + cos(q(z₂), z'₁)), where no gradient reaches z'.

    Source: Grill et al. 2020, "Bootstrap your own latent".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection.
        hidden: width inside projector and predictor.
        momentum: share of itself that the teacher keeps in a step, at the start.
        final_momentum: at the end.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 256,
        hidden: Width = 4096,
        momentum: Fraction = 0.996,
        final_momentum: Fraction = 1.0,
    ) -> None:
        super().__init__(backbone, momentum, final_momentum)
        self.projector = BYOLProjectionHead(dim, hidden, projection)
        self.predictor = BYOLPredictionHead(projection, hidden, projection)
        self.teacher_backbone = teacher_of(self.backbone)
        self.teacher_projector = teacher_of(self.projector)
        self.similarity = NegativeCosineSimilarity()

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
        ]

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        predicted = [self.predictor(self.projector(self.backbone(view))) for view in views]
        with torch.no_grad():
            targets = [self.teacher_projector(self.teacher_backbone(view)) for view in views]
        with full_precision(predicted[0]):
            near = self.similarity(predicted[0].float(), targets[1].float())
            near = near + self.similarity(predicted[1].float(), targets[0].float())
            loss = 4 + 2 * near
        return {"loss": loss}
