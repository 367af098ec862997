"""Cross-entropy of classes."""

from __future__ import annotations

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config.registry import register

# Raised when predictions of classification tasks with this loss change. 1: the first.
VERSION = 1


@register("cross_entropy", task="classification")
def cross_entropy(
    logits: Tensor,
    label: Tensor,
    weights: Tensor,
    *,
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> Tensor:
    """Minus the log probability of a case's own class; a mean with the weights of the classes.

    Source: Szegedy et al. 2016, "Rethinking the Inception architecture for computer vision", for
    the smoothing.

    Args:
        logits: (B, C).
        label: int64 (B,), the class.
        weights: (C,), of the classes.
        label_smoothing: share of the probability that is spread over all classes.
    """
    return F.cross_entropy(logits, label, weights, label_smoothing=label_smoothing)
