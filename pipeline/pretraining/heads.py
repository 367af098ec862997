"""The head of DINO, and what a teacher's scores become before a student learns them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from lightly.loss.swav_loss import sinkhorn
from lightly.models.modules.heads import DINOProjectionHead
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def dino_head(dim: int, hidden: int, bottleneck: int, outputs: int) -> DINOProjectionHead:
    """Three layers, length 1, then prototypes of length 1.

    Its last layer is `torch.nn.utils.parametrizations.weight_norm`, which unlike the older form can
    be copied once it has been used.

    Args:
        dim: of the features.
        hidden: width of the layers.
        bottleneck: width before the prototypes.
        outputs: number of prototypes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the form that is replaced here
        head = DINOProjectionHead(dim, hidden, bottleneck, outputs)
    last = nn.Linear(bottleneck, outputs, bias=False)
    with torch.no_grad():
        last.weight.copy_(head.last_layer.weight_v)
    parametrizations.weight_norm(last)
    length, _ = _of(last)
    length.data.fill_(1)
    length.requires_grad = False
    head.last_layer = last
    return head


def balanced(scores: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """A teacher's scores such that their softmax is the Sinkhorn–Knopp assignment of the batch.

    DINOv2 centres so instead of subtracting a running mean: Q = exp(scores / τ), whose rows (tiles)
    and columns (prototypes) are brought to equal sums in turn. Softmax(τ log Q / τ) is Q, so that
    the losses which are written for a mean take these scores with a centre of 0.

    Source: Caron et al. 2020 (SwAV); Oquab et al. 2023 (DINOv2).

    Args:
        scores: (N, K), of all tiles, or tokens, of a step.
        temperature: τ, the teacher's.
        iterations: of the balancing.
    """
    scores = scores.float()
    shifted = scores - scores.max()  # the assignment is the same, and exp stays finite
    q = sinkhorn(shifted, iterations, temperature, gather_distributed=True)
    return temperature * q.clamp_min(1e-30).log()


def temperature_at(first: float, last: float, warm_up: float, done: float) -> float:
    """A teacher's temperature, which rises in a line and then stays.

    Args:
        first: at the start.
        last: after the rise.
        warm_up: share of the course that the rise takes.
        done: share of the course.
    """
    return last if done >= warm_up else first + (last - first) * done / warm_up


def stop_last_layer(head: nn.Module, stop: bool) -> None:
    """Keep a head's prototypes as they are, or let them learn: DINO's first epoch.

    Args:
        head: from `dino_head`.
        stop: whether they stay.
    """
    _, direction = _of(head.last_layer)
    direction.requires_grad_(not stop)


def _of(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:
    """Lengths and directions of a layer with weight norm."""
    weight = layer.parametrizations.weight
    return weight.original0, weight.original1
