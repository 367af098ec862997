"""CluSiam."""

from __future__ import annotations

import torch
from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.cluster_loss import assign_with_noise, cluster_loss
from pipeline.pretraining.methods.base import Method, Moment, full_precision, gathered

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("clusiam", published=("tau", "final_tau", "least_tiles"))
class CluSiam(Method):
    """SimSiam with a clustering constraint: L = (1 - α) L_inv + α L_clu, where
    L_inv = -(cos(p₁, sg z₂) + cos(p₂, sg z₁)) and L_clu is the mean similarity of the centroids of
    clusters that the network assigns the batch's tiles to.

    Source: Wu et al. 2023, "Improving representation learning for histopathologic images with
    cluster constraints".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection.
        hidden: width inside the heads.
        clusters: how many there can be.
        alpha: α.
        tau: temperature of the noise of assignments, at the start.
        final_tau: at the end; less noise then, so that clusters settle.
        least_tiles: clusters with fewer tiles of a batch do not count.
        fixed_predictor: the predictor's learning rate does not fall.
        faithful: the published loss: noise of temperature 1 throughout, all clusters alike, no
            gradient where one cluster has all tiles.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 2048,
        hidden: Width = 512,
        clusters: Count = 100,
        alpha: Fraction = 0.5,
        tau: Positive = 1.0,
        final_tau: Positive = 0.3,
        least_tiles: Count = 2,
        fixed_predictor: bool = False,
        faithful: bool = False,
    ) -> None:
        super().__init__(backbone)
        self.steady = ("predictor.",) if fixed_predictor else ()
        self.projector = SimSiamProjectionHead(dim, hidden, projection)
        self.predictor = SimSiamPredictionHead(projection, hidden, projection)
        self.assigner = assigner(projection, hidden, clusters)
        self.alpha = alpha
        self.noise = Noise(tau, final_tau, least_tiles, faithful)

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        first, second = (self.projector(self.backbone(view)) for view in views)
        predicted = self.predictor(first), self.predictor(second)
        both = torch.cat([first, second])
        scores = self.assigner(both)
        with full_precision(both):
            apart = cosine_similarity(predicted[0].float(), second.detach().float()).mean()
            apart = apart + cosine_similarity(predicted[1].float(), first.detach().float()).mean()
            clusters = self.noise.loss(both, scores, now)
            loss = -(1 - self.alpha) * apart + self.alpha * clusters
        return {"loss": loss, "invariance": -apart, "clusters": clusters}

    def assign(self, features: Tensor) -> Tensor:
        return self.assigner(self.projector(features))


class Noise:
    """How tiles are assigned to clusters, and what their centroids cost.

    Args:
        tau: temperature at the start.
        final_tau: at the end.
        least: tiles that a cluster must have to count.
        faithful: as published: temperature 1, every cluster counts.
    """

    def __init__(self, tau: float, final_tau: float, least: int, faithful: bool) -> None:
        self.taus = (1.0, 1.0) if faithful else (tau, final_tau)
        self.least, self.faithful = least, faithful

    def loss(self, z: Tensor, scores: Tensor, now: Moment) -> Tensor:
        """The clusters' loss of the batches of all processes together.

        Args:
            z: (N, d), projections.
            scores: (N, K).
            now: where in the course this is.
        """
        first, last = self.taus
        members = assign_with_noise(scores, first + (last - first) * min(now.done, 1.0))
        return cluster_loss(
            gathered(z.detach()),
            gathered(members),
            gathered(scores.float()),
            least=self.least,
            faithful=self.faithful,
        )


def assigner(width: int, hidden: int, clusters: int) -> nn.Sequential:
    """A projector for clusters and what assigns to them.

    Args:
        width: of the projections.
        hidden: inside.
        clusters: how many.
    """
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, clusters),
    )
