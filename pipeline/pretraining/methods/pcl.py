"""PCL."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from lightly.models.modules.heads import MoCoProjectionHead
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.methods.base import (
    Moment,
    MomentumMethod,
    full_precision,
    gathered,
    teacher_of,
)

# Raised when teachers of this method change. 1: the first. 2: a clustering begins with the
# centroids of the one before.
VERSION = 2


@register("pcl")
class PCL(MomentumMethod):
    """MoCo, and clusters of the teacher's features as further positives: InfoNCE against a queue,
    plus the mean over several numbers of clusters of
    -log exp(v·c/φ_c) / Σⱼ exp(v·cⱼ/φⱼ), where φ is a cluster's own concentration.

    The k-means of the E step takes the latest features that the teacher gave, `bank` of them: as
    many as an epoch has tiles is what was published. It begins with the centroids of the clustering
    before, so that a cluster stays the same one and can be averaged over steps.

    Source: Li et al. 2021, "Prototypical contrastive learning of unsupervised representations".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        projection: width of the projection.
        hidden: width inside the projector.
        queue: features that are kept as negatives.
        bank: features that are kept and clustered; 0: those of the queue. An epoch is a visit to
            every slide, of `tiles_per_visit` tiles each, until all have been seen.
        clusters: numbers of clusters, of which each is a clustering of its own.
        cluster_every: steps between clusterings.
        temperature: of InfoNCE, and mean of the concentrations.
        smoothing: of the concentrations of small clusters.
        clusters_from: share of the course before the clusters count.
        momentum: share of itself that the teacher keeps in a step, at the start.
        final_momentum: at the end.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        projection: Width = 128,
        hidden: Width = 2048,
        queue: Count = 16384,
        bank: int = 0,
        clusters: tuple[int, ...] = (250, 500, 1000),
        cluster_every: Count = 500,
        temperature: Positive = 0.2,
        smoothing: Positive = 10.0,
        clusters_from: Fraction = 0.1,
        momentum: Fraction = 0.999,
        final_momentum: Fraction = 0.999,
    ) -> None:
        super().__init__(backbone, momentum, final_momentum)
        self.projector = MoCoProjectionHead(dim, hidden, projection)
        self.teacher_backbone = teacher_of(self.backbone)
        self.teacher_projector = teacher_of(self.projector)
        self.temperature, self.smoothing = temperature, smoothing
        self.every, self.start = cluster_every, clusters_from
        self.negatives, self.bank = queue, bank or queue
        self.sizes = tuple(k for k in clusters if k < self.bank)
        self.queue: Tensor
        self.filled: Tensor
        self.clustered: Tensor
        # The latest features; the very latest of them are the negatives.
        self.register_buffer("queue", torch.zeros(max(self.bank, queue), projection))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        self.register_buffer("clustered", torch.zeros((), dtype=torch.bool))
        for k in self.sizes:
            self.register_buffer(f"centroids_{k}", torch.zeros(k, projection))
            self.register_buffer(f"concentration_{k}", torch.ones(k))

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [
            (self.teacher_backbone, self.backbone),
            (self.teacher_projector, self.projector),
        ]

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        queries = self.projector(self.backbone(views[0]))
        with torch.no_grad():
            keys = self.teacher_projector(self.teacher_backbone(views[1]))
        with full_precision(queries):
            queries = F.normalize(queries.float(), dim=1)
            keys = F.normalize(keys.float(), dim=1)
            if now.done >= self.start and (not bool(self.clustered) or now.step % self.every == 0):
                self.cluster(now.step)
            instances = self.contrast(queries, keys)
            clusters = self.prototypes(queries, keys)
            self.push(keys)
        loss = instances + clusters
        return {"loss": loss, "instances": instances, "clusters": clusters}

    def contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """InfoNCE of queries (B, d) with their keys against the queue, or each other at first."""
        negatives = self.latest(self.negatives)
        if len(negatives) == 0:
            scores = queries @ keys.t()
            return F.cross_entropy(
                scores / self.temperature, torch.arange(len(queries), device=queries.device)
            )
        positive = (queries * keys).sum(1, keepdim=True)
        scores = torch.cat([positive, queries @ negatives.t()], dim=1) / self.temperature
        return F.cross_entropy(scores, scores.new_zeros(len(scores), dtype=torch.int64))

    def prototypes(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Mean over the clusterings of the cross-entropy with the keys' clusters; 0 without any."""
        if not bool(self.clustered) or not self.sizes:
            return queries.sum() * 0
        total = queries.new_zeros(())
        for k in self.sizes:
            centroids, phi = getattr(self, f"centroids_{k}"), getattr(self, f"concentration_{k}")
            chosen = (keys @ centroids.t()).argmax(1)
            total = total + F.cross_entropy(queries @ centroids.t() / phi, chosen)
        return total / len(self.sizes)

    def latest(self, count: int) -> Tensor:
        """A copy of the features that came last, of so many at most: (n, d)."""
        filled = int(self.filled)
        count = min(count, filled, len(self.queue))
        places = torch.arange(filled - count, filled, device=self.queue.device) % len(self.queue)
        return self.queue[places]

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Put keys (B, d) of all processes into the queue, over the oldest ones."""
        keys = gathered(keys)[-len(self.queue) :]
        places = (int(self.filled) + torch.arange(len(keys))) % len(self.queue)
        self.queue[places.to(self.queue.device)] = keys
        self.filled += len(keys)

    @torch.no_grad()
    def cluster(self, seed: int) -> None:
        """Cluster the bank, once for each number of clusters.

        Every process has the same bank and seed, and so the same clusters.

        Args:
            seed: of the first start; later ones begin with the centroids that there are.
        """
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        points = self.latest(self.bank).cpu()
        if not self.sizes or len(points) <= max(self.sizes):
            return
        for k in self.sizes:
            known = getattr(self, f"centroids_{k}").cpu().numpy()
            begin = known if bool(self.clustered) else "k-means++"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                means = KMeans(k, init=begin, n_init=1, max_iter=20, random_state=seed)
                found = means.fit(points.numpy())
            centroids = F.normalize(torch.from_numpy(found.cluster_centers_).float(), dim=1)
            labels = torch.from_numpy(found.labels_).long()
            phi = concentration(points, centroids, labels, self.temperature, self.smoothing)
            getattr(self, f"centroids_{k}").copy_(centroids)
            getattr(self, f"concentration_{k}").copy_(phi)
        self.clustered.fill_(True)

    def assign(self, features: Tensor) -> Tensor | None:
        if not self.sizes:
            return None
        points = F.normalize(self.projector(features).float(), dim=1)
        k = self.sizes[0]
        scores: Tensor = points @ getattr(self, f"centroids_{k}").t()
        return scores / getattr(self, f"concentration_{k}")


def concentration(
    points: Tensor, centroids: Tensor, labels: Tensor, temperature: float, smoothing: float
) -> Tensor:
    """How loose each cluster is: φ = Σ‖v - c‖ / (Z log(Z + α)), of mean temperature.

    A cluster of one tile has the largest φ of all; then all are clipped to the 10th and 90th
    percentile, as the authors do.

    Args:
        points: (N, d).
        centroids: (K, d).
        labels: int64 (N,), each point's cluster.
        temperature: the mean.
        smoothing: α.

    Returns:
        (K,).
    """
    apart = (points - centroids[labels]).norm(dim=1)
    total = torch.zeros(len(centroids)).index_add_(0, labels, apart)
    count = torch.bincount(labels, minlength=len(centroids)).float()
    several = count > 1
    phi = total / (count * torch.log(count + smoothing)).clamp_min(1e-12)
    phi = torch.where(several, phi, phi[several].max() if bool(several.any()) else 1.0)
    low, high = phi.quantile(0.1), phi.quantile(0.9)
    phi = phi.clamp(low, high).clamp_min(1e-6)
    return temperature * phi / phi.mean()
