"""Signs that a network has collapsed: all tiles alike, or clusters that mean nothing.

Losses do not say it: a constant output minimises the invariance of a siamese network, and random
assignments bring the clusters' loss to about 0. Two states of the clusters are known: *dominant*,
where one logit exceeds all others by so much that noise changes nothing, and *uniform*, where the
logits are so alike that noise decides. In both, a tile says nothing of its cluster: the mutual
information of tile and cluster is 0, and the entropy of the mean assignment tells which it is.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.pretraining import AlarmsConfig
from pipeline.pretraining.cluster_loss import assign_with_noise, bound, cluster_loss


def feature_signs(features: Tensor) -> dict[str, float]:
    """How much features of different tiles differ.

    Args:
        features: float (N, d).

    Returns:
        spread: mean deviation of a dimension, of features of length 1, times √d: 1 for directions
            that are spread evenly, 0 where all are the same (Chen and He 2021);
        rank: the effective rank of Garrido et al. 2023, "RankMe": exp of the entropy of the
            singular values;
        largest_share: of the variance, that the first principal axis has.
    """
    unit = F.normalize(features.float(), dim=1)
    spread = float(unit.std(0, correction=0).mean()) * math.sqrt(unit.shape[1])
    singular = torch.linalg.svdvals(features.double())
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    centred = torch.linalg.svdvals((features - features.mean(0)).double()).square()
    return {
        "spread": spread,
        "rank": float(torch.exp(-(shares * shares.log()).sum())),
        "largest_share": float(centred[0] / centred.sum().clamp_min(1e-12)),
    }


def cluster_signs(scores: Tensor, features: Tensor, tau: float = 1.0) -> dict[str, float]:
    """What clusters tell of tiles.

    Args:
        scores: float (N, K), of the tiles for the clusters.
        features: float (N, d), of which centroids are made.
        tau: temperature of the noise.

    Returns:
        assigned, assigned_with_noise: how many clusters are, without and with Gumbel noise;
        steady: share of the tiles that noise leaves in their cluster;
        entropy: of the mean assignment, as a share of log K: 1 if all clusters are used alike;
        information: of tile and cluster, in nats: entropy of the mean less mean of the entropies;
        bound_distance: of the clusters' loss, without noise, from -1/(k-1), the least that k
            clusters can have.
    """
    known = scores.shape[1]
    plain = scores.argmax(1)
    noisy = assign_with_noise(scores, tau).argmax(1)
    shares = scores.float().softmax(1)
    mean = shares.mean(0)
    total = -(mean * mean.clamp_min(1e-12).log()).sum()
    each = -(shares * shares.clamp_min(1e-12).log()).sum(1).mean()
    populated = int((torch.bincount(plain, minlength=known) > 0).sum())
    loss = cluster_loss(features, F.one_hot(plain, known).float(), scores, least=1)
    return {
        "assigned": float(populated),
        "assigned_with_noise": float(len(noisy.unique())),
        "steady": float((plain == noisy).float().mean()),
        "entropy": float(total) / math.log(max(known, 2)),
        "information": max(0.0, float(total - each)),
        "bound_distance": float(loss) - bound(populated) if populated > 1 else 2.0,
    }


@dataclasses.dataclass(frozen=True)
class Alarm:
    """A sign of a collapse.

    Attributes:
        name: `features`, `rank`, `dominant` or `uniform`.
        text: what was seen.
    """

    name: str
    text: str


def alarms(signs: dict[str, float], cfg: AlarmsConfig) -> list[Alarm]:
    """Which alarms some signs set off.

    Args:
        signs: from `feature_signs` and, of a method with clusters, `cluster_signs`.
        cfg: the limits.
    """
    found = []
    if signs["spread"] < cfg.least_spread:
        found.append(
            Alarm("features", f"features of all tiles are alike (spread {signs['spread']:.3f})")
        )
    if signs["rank"] < cfg.least_rank:
        found.append(Alarm("rank", f"features have an effective rank of {signs['rank']:.2f}"))
    if "information" in signs and signs["information"] < cfg.least_information:
        clusters, noisy = int(signs["assigned"]), int(signs["assigned_with_noise"])
        seen = f"{clusters} clusters, {noisy} with noise"
        if signs["entropy"] < 0.5:
            found.append(Alarm("dominant", f"one cluster has all tiles ({seen})"))
        else:
            found.append(Alarm("uniform", f"noise decides on the cluster ({seen})"))
    return found
