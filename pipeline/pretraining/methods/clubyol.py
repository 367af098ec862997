"""CluBYOL."""

from __future__ import annotations

import torch
from lightly.models.modules.heads import BYOLPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.methods.base import Moment, MomentumMethod, full_precision, teacher_of
from pipeline.pretraining.methods.clusiam import Noise, assigner

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("clubyol", published=("momentum", "final_momentum", "tau", "final_tau", "least_tiles"))
class CluBYOL(MomentumMethod):
    """BYOL with a clustering constraint: L = (1 - α) L_inv + α L_clu, where
    L_inv = 2 - cos(p₁, z'₂) - cos(p₂, z'₁), z' are a momentum teacher's projections, and L_clu is
    as in CluSiam.

    Source: Wu et al. 2023, "Improving representation learning for histopathologic images with
    cluster constraints".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection.
        hidden: width inside the projector.
        predictor: width inside the predictor.
        clusters: how many there can be.
        alpha: α; larger than CluSiam's, since the invariance spans twice the range.
        momentum: share of itself that the teacher keeps in a step, at the start.
        final_momentum: at the end.
        tau: temperature of the noise of assignments, at the start.
        final_tau: at the end.
        least_tiles: clusters with fewer tiles of a batch do not count.
        faithful: as published: a momentum of 0.99 throughout, running means of the teacher's own,
            and the loss of `clusiam` with `faithful`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 256,
        hidden: Width = 512,
        predictor: Width = 4096,
        clusters: Count = 100,
        alpha: Fraction = 0.9,
        momentum: Fraction = 0.99,
        final_momentum: Fraction = 1.0,
        tau: Positive = 1.0,
        final_tau: Positive = 0.3,
        least_tiles: Count = 2,
        faithful: bool = False,
    ) -> None:
        if faithful:
            momentum = final_momentum = 0.99
        super().__init__(backbone, momentum, final_momentum)
        self.buffers_too = not faithful
        self.projector = SimSiamProjectionHead(dim, hidden, projection)
        self.predictor = BYOLPredictionHead(projection, predictor, projection)
        self.assigner = assigner(projection, projection, clusters)
        self.teacher_backbone = teacher_of(self.backbone)
        self.teacher_projector = teacher_of(self.projector)
        self.alpha = alpha
        self.noise = Noise(tau, final_tau, least_tiles, faithful)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
        ]

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        projected = [self.projector(self.backbone(view)) for view in views]
        predicted = [self.predictor(z) for z in projected]
        with torch.no_grad():
            targets = [self.teacher_projector(self.teacher_backbone(view)) for view in views]
        both = torch.cat(projected)
        scores = self.assigner(both)
        with full_precision(both):
            apart = 2 - cosine_similarity(predicted[0].float(), targets[1].float()).mean()
            apart = apart - cosine_similarity(predicted[1].float(), targets[0].float()).mean()
            clusters = self.noise.loss(both, scores, now)
            loss = (1 - self.alpha) * apart + self.alpha * clusters
        return {"loss": loss, "invariance": apart, "clusters": clusters}

    def assign(self, features: Tensor) -> Tensor:
        return self.assigner(self.projector(features))
