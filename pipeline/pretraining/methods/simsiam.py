"""SimSiam."""

from __future__ import annotations

from lightly.loss import NegativeCosineSimilarity
from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Width
from pipeline.pretraining.methods.base import Method, Moment, full_precision

# Raised when teachers of this method change. 1: the first. 2: the predictor's rate does not fall.
VERSION = 2


@register("simsiam")
class SimSiam(Method):
    """Each view's projection is predicted from the other's, without negatives and without a second
    network: L = -½ (cos(p₁, sg z₂) + cos(p₂, sg z₁)), where sg stops the gradient.

    Source: Chen and He 2021, "Exploring simple Siamese representation learning".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection.
        bottleneck: width of the predictor's middle.
        fixed_predictor: the predictor's learning rate does not fall, as it must go on following
            the projections.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 2048,
        bottleneck: Width = 512,
        fixed_predictor: bool = True,
    ) -> None:
        super().__init__(backbone)
        self.steady = ("predictor.",) if fixed_predictor else ()
        self.projector = SimSiamProjectionHead(dim, projection, projection)
        self.predictor = SimSiamPredictionHead(projection, bottleneck, projection)
        self.similarity = NegativeCosineSimilarity()

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        first, second = (self.projector(self.backbone(view)) for view in views)
        predicted = self.predictor(first), self.predictor(second)
        with full_precision(first):
            loss = 0.5 * (
                self.similarity(predicted[0].float(), second.detach().float())
                + self.similarity(predicted[1].float(), first.detach().float())
            )
        return {"loss": loss}
