"""The clustering constraint of CluSiam and CluBYOL: centroids of clusters far from each other.

Z are projections of a batch, without gradient; A = assigner(…) are scores (N, K). Tiles are
assigned hard, straight through a Gumbel softmax; the loss is the mean cosine similarity of the
clusters' centroids. Of k clusters it can reach -1/(k-1), a simplex.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# Raised when losses change. 1: the first.
VERSION = 1


def assign_with_noise(scores: Tensor, tau: float) -> Tensor:
    """One cluster for each tile, drawn in proportion to softmax(scores / tau): (N, K), 0 or 1.

    The gradient is the soft assignment's. Source: Jang et al. 2017, "Categorical reparameterization
    with Gumbel-softmax".

    Args:
        scores: (N, K).
        tau: temperature.
    """
    return F.gumbel_softmax(scores.float(), tau=tau, hard=True)


def cluster_loss(
    z: Tensor, members: Tensor, scores: Tensor, *, least: int = 2, faithful: bool = False
) -> Tensor:
    """How like each other the clusters' centroids are: 1, all alike, down to -1/(k-1), a simplex.

    With `faithful`, as published: every cluster that has a tile counts, every pair as much as any
    other, and with fewer than two clusters the loss is 1 without a gradient: a state in which one
    cluster has all tiles is never left.

    Otherwise a cluster needs `least` tiles, pairs count by the product of the clusters' sizes (else
    clusters of one tile, which noise makes, decide), and with fewer than two clusters the loss is 1
    with the gradient of KL(uniform ‖ mean assignment), which is not zero however sure the
    assignment is.

    Args:
        z: (N, d), projections; no gradient goes through them.
        members: (N, K), hard assignments with a gradient.
        scores: (N, K), the assigner's, before noise.
        least: tiles that a cluster must have to count.
        faithful: as published.

    Returns:
        a scalar.
    """
    z = F.normalize(z.detach().to(members.dtype), dim=1, eps=1e-8)
    sizes = members.sum(0)
    centroids = (members.t() @ z) / sizes.clamp(min=1)[:, None]
    centroids = F.normalize(centroids, dim=1)
    there = sizes.detach().round() >= (1 if faithful else least)
    if int(there.sum()) < 2:
        if faithful:
            return (scores.float() * 0).sum() + 1
        spread = spread_penalty(scores)
        return 1 + spread - spread.detach()
    centroids, sizes = centroids[there], sizes[there].detach()
    likeness = centroids @ centroids.t()
    first, second = torch.triu_indices(len(sizes), len(sizes), 1, device=z.device)
    pairs = likeness[first, second]
    weight = torch.ones_like(pairs) if faithful else sizes[first] * sizes[second]
    return (pairs * weight).sum() / weight.sum()


def spread_penalty(scores: Tensor) -> Tensor:
    """KL(uniform ‖ mean assignment) of scores (N, K): 0 if all clusters are used alike.

    Its gradient by the scores is the mean assignment less 1/K, which does not vanish where one
    cluster has everything.
    """
    count, clusters = scores.shape
    shares = torch.logsumexp(F.log_softmax(scores.float(), dim=1), dim=0) - math.log(count)
    return -shares.mean() - math.log(clusters)


def bound(clusters: int) -> float:
    """The least that the loss of so many clusters can be; 1 for fewer than two."""
    return -1 / (clusters - 1) if clusters > 1 else 1.0
