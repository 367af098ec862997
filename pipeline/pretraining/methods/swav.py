"""SwAV."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from lightly.models.modules.heads import SwaVProjectionHead
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.methods.base import (
    Method,
    Moment,
    full_precision,
    gathered,
    place_among,
)

# Raised when teachers of this method change. 1: the first. 2: prototypes have no bias, and a queue
# of earlier tiles balances the codes of a batch that is small for the prototypes.
VERSION = 2


@register("swav")
class SwAV(Method):
    """The cluster of one view is predicted from another; clusters are balanced codes q of the batch
    (Sinkhorn–Knopp): L = -Σₖ q₂ₖ log softmax(z₁ᵀcₖ/τ), swapped over all pairs of views. Codes of
    fewer tiles than prototypes are no clusters, so that the latest tiles help to balance them.

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
        queue: earlier tiles that the codes are balanced with; 0: none.
        queue_from: share of the course before they count, in which their features change too fast.
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
        queue: int = 3840,
        queue_from: Fraction = 0.1,
        frozen: Fraction = 0.01,
    ) -> None:
        super().__init__(backbone)
        self.small, self.frozen, self.queue_from = small_crops, frozen, queue_from
        self.projector = SwaVProjectionHead(dim, hidden, projection)
        self.prototypes = nn.Linear(projection, prototypes, bias=False)
        self.swap = SwaVLoss(temperature, 3, epsilon, sinkhorn_gather_distributed=True)
        self.queue: Tensor
        self.filled: Tensor
        self.register_buffer("queue", torch.zeros(self.large, queue, projection))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        projected = [self.project(self.backbone(view)) for view in views]
        with full_precision(projected[0]):
            # A copy: the prototypes are brought to length 1 in place before each step.
            weight = self.prototypes.weight.clone()
            weight = weight.detach() if now.done < self.frozen else weight
            scores = [F.linear(one, weight) for one in projected]
            earlier = self.earlier() if now.done >= self.queue_from else None
            if earlier is not None:
                earlier = [F.linear(one, weight.detach()) for one in earlier]
            loss = self.swap(scores[: self.large], scores[self.large :], earlier)
            self.push(projected[: self.large])
        return {"loss": loss.squeeze()}

    def project(self, features: Tensor) -> Tensor:
        """Projections (B, p) of features (B, d), of length 1."""
        projected = self.projector(features)
        with full_precision(projected):
            return F.normalize(projected.float(), dim=1)

    def assign(self, features: Tensor) -> Tensor:
        return F.linear(self.project(features), self.prototypes.weight)

    def earlier(self) -> list[Tensor] | None:
        """The queue of each large view, (n, p); None until it is full.

        Every process has the same queue, and balances its own part of it.
        """
        size = self.queue.shape[1]
        if size == 0 or int(self.filled) < size:
            return None
        here, world = place_among()
        return [one[here::world] for one in self.queue]

    @torch.no_grad()
    def push(self, projected: list[Tensor]) -> None:
        """Put projections (B, p) of the large views into the queue, over the oldest ones.

        Args:
            projected: of each large view.
        """
        size = self.queue.shape[1]
        new = [gathered(one.detach())[-size:] if size else one[:0] for one in projected]
        places = (int(self.filled) + torch.arange(len(new[0]))) % max(1, size)
        for one, rows in zip(self.queue, new, strict=True):
            one[places.to(one.device)] = rows
        self.filled += len(new[0])
