"""SwAV."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from lightly.models.modules.heads import SwaVProjectionHead, SwaVPrototypes
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.methods.base import Method, Moment, full_precision

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("swav")
class SwAV(Method):
    """The cluster of one view is predicted from another; clusters are balanced codes q of the batch
    (Sinkhorn–Knopp): L = -Σₖ q₂ₖ log softmax(z₁ᵀcₖ/τ), swapped over all pairs of views.

    Source: Caron et al. 2020, "Unsupervised learning of visual features by contrasting cluster
    assignments".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection.
        hidden: width inside the projector.
        prototypes: number of clusters.
        temperature: τ.
        epsilon: smoothness of the codes; small ones are sharp.
        small_crops: further small views of each tile.
        frozen: share of the course in which the prototypes stay as they were drawn.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 128,
        hidden: Width = 2048,
        prototypes: Count = 512,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        small_crops: int = 6,
        frozen: Fraction = 0.01,
    ) -> None:
        super().__init__(backbone)
        self.small, self.frozen = small_crops, frozen
        self.projector = SwaVProjectionHead(dim, hidden, projection)
        self.prototypes = SwaVPrototypes(projection, prototypes)
        self.swap = SwaVLoss(temperature, 3, epsilon, sinkhorn_gather_distributed=True)

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        with torch.no_grad():
            self.prototypes.normalize()
        scores = [self._scores(self.backbone(view), now.done < self.frozen) for view in views]
        with full_precision(scores[0]):
            loss = self.swap(scores[: self.large], scores[self.large :])
        return {"loss": loss.squeeze()}

    def assign(self, features: Tensor) -> Tensor:
        return self._scores(features, frozen=False)

    def _scores(self, features: Tensor, frozen: bool) -> Tensor:
        projected = self.projector(features)
        with full_precision(projected):
            projected = F.normalize(projected.float(), dim=1)
            # A copy: the prototypes are brought to length 1 in place before each step.
            (head,) = self.prototypes.heads
            weight, bias = head.weight.clone(), head.bias
            if frozen:
                weight, bias = weight.detach(), bias.detach()
            return F.linear(projected, weight, bias)
