"""Mean and max pooling: the baselines that every attention model must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Aggregator, Bag, full_mask, masked_mean
from pipeline.config.registry import register
from pipeline.config.section import Fraction

# Raised when predictions with these aggregators change. 1: the first.
VERSION = 1


@register("mean_pool", published=("dropout",))
class MeanPool(Aggregator):
    """Mean over tiles, then a linear layer: a linear probe of the bag, d + 1 parameters per output.

    Source: Filiot et al. 2023, "Scaling self-supervised learning for histopathology with masked
    image modeling" (Phikon), baseline MeanPool.

    Args:
        dim: feature width.
        out: outputs.
        dropout: of the pooled vector.
        faithful: without dropout, as published.
    """

    def __init__(
        self, dim: int, out: int, *, dropout: Fraction = 0.25, faithful: bool = False
    ) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0 if faithful else dropout)
        self.head = nn.Linear(dim, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        return Bag(self.head(self.drop(self.reduce(x, full_mask(x, mask)))))

    @staticmethod
    def reduce(x: Tensor, mask: Tensor) -> Tensor:
        return masked_mean(x, mask)


@register("max_pool", published=("dropout",))
class MaxPool(Aggregator):
    """Largest value of each feature over the tiles, then a linear layer.

    Source: the usual counterpart of mean pooling, e.g. Ilse, Tomczak, Welling 2018, section 2.3.

    Args:
        dim: feature width.
        out: outputs.
        dropout: of the pooled vector.
        faithful: without dropout.
    """

    def __init__(
        self, dim: int, out: int, *, dropout: Fraction = 0.25, faithful: bool = False
    ) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.0 if faithful else dropout)
        self.head = nn.Linear(dim, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        return Bag(self.head(self.drop(self.reduce(x, full_mask(x, mask)))))

    @staticmethod
    def reduce(x: Tensor, mask: Tensor) -> Tensor:
        largest = x.masked_fill(mask[..., None], torch.finfo(x.dtype).min).amax(1)
        return largest.masked_fill(mask.all(1, keepdim=True), 0.0)
