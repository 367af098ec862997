"""What every MIL model is: a bag and its mask in, outputs and instance scores out."""

from __future__ import annotations

import itertools
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Bag(NamedTuple):
    """What a MIL model says of B bags.

    Attributes:
        out: (B, C).
        scores: (B, N) instance scores, non-negative, 0 in padding; None where a model has none.
        instances: (B, N, E) embedded instances, kept by models with an instance loss.
    """

    out: Tensor
    scores: Tensor | None = None
    instances: Tensor | None = None


class Aggregator(nn.Module):
    """Base of the MIL models.

    `forward(x, mask)` takes x float (B, N, d) and mask bool (B, N), True = padding, or None. The
    output does not depend on what stands under the mask, and stays finite for an empty bag.

    Attributes:
        ordered: whether the output depends on the order of the tiles.
    """

    ordered: ClassVar[bool] = False

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        raise NotImplementedError

    @staticmethod
    def reduce(x: Tensor, mask: Tensor) -> Tensor | None:
        """The bags as vectors (B, d), where a model sees no more of a bag than this.

        Such a model gives the same output for the bag whose one tile is this vector, so that many
        trainings on the same bags need not look at the tiles again. None for all others.
        """
        return None

    def instance_loss(self, bag: Bag, mask: Tensor, labels: Tensor) -> Tensor | None:
        """A loss on instances given the bags' classes int64 (B,); None where a model has none.

        Args:
            bag: what the model said of the bags.
            mask: bool (B, N), True = padding.
            labels: int64 (B,), the classes.
        """
        return None


class Weighing(Aggregator):
    """Base of those that pool by weights alone, so that a tile may count as more or less than one.

    `forward` also takes an emphasis (B, N), as `Batch.emphasis` says, or None.
    """

    def forward(self, x: Tensor, mask: Tensor | None = None, emphasis: Tensor | None = None) -> Bag:
        raise NotImplementedError


def full_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mask, or one without padding."""
    return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax over what is not masked; all zeros (not NaN) where everything is.

    Args:
        scores: of any shape.
        mask: bool, broadcast to the scores; True = left out.
        dim: over which the shares sum to 1.
    """
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(mask, lowest).softmax(dim)
    return weights.masked_fill(mask, 0.0)


def masked_mean(x: Tensor, mask: Tensor, emphasis: Tensor | None = None) -> Tensor:
    """Mean over the real rows of x (B, N, d): float32 (B, d), zeros for an empty bag.

    With an emphasis (B, N) a row counts exp(emphasis) times.

    Args:
        x: (B, N, d).
        mask: bool (B, N), True = padding.
        emphasis: (B, N), logarithm of how much each row counts; None: all alike.
    """
    if emphasis is not None:
        return weighted_sum(masked_softmax(emphasis.float(), mask), x.float())
    kept = x.masked_fill(mask[..., None], 0.0).sum(1, dtype=torch.float32)
    return kept / (~mask).sum(1, keepdim=True).clamp(min=1)


def weighted_sum(weights: Tensor, x: Tensor) -> Tensor:
    """(B, N) weights on (B, N, d) rows: (B, d). Rows of weight 0 do not count."""
    return torch.bmm(weights.unsqueeze(1), x).squeeze(1)


def extremes(scores: Tensor, mask: Tensor, k: int, largest: bool) -> Tensor:
    """The k largest (or smallest) real scores of each bag and channel, best first.

    A bag with fewer than k tiles repeats its last one, so that its size does not show as zeros.

    Args:
        scores: (B, N, C).
        mask: (B, N), True = padding.
        k: how many.
        largest: the largest, or the smallest.

    Returns:
        (B, k, C); zeros for an empty bag.
    """
    lowest = torch.finfo(scores.dtype).min
    sign = 1.0 if largest else -1.0
    real = (~mask).sum(1)
    reach = min(k, scores.shape[1])
    best = (sign * scores).masked_fill(mask[..., None], lowest).topk(reach, dim=1).values
    last = (real - 1).clamp(min=0)[:, None]
    places = torch.minimum(torch.arange(k, device=scores.device)[None, :], last)
    picked = sign * best.gather(1, places[..., None].expand(-1, -1, scores.shape[2]))
    return picked.masked_fill((real == 0)[:, None, None], 0.0)


def mlp(sizes: list[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between them, none at the end."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])
