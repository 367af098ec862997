"""Mean and max pooling: the baselines that every attention model must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Aggregator, Bag, full_mask, masked_mean


class MeanPool(Aggregator):
    """Mean over tiles, then a linear layer: a linear probe of the bag.

    Source: the MeanPool baseline of Filiot et al. 2023 (Phikon); d + 1 parameters per output.
    """

    def __init__(self, dim: int, out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        return Bag(self.head(self.drop(self.reduce(x, full_mask(x, mask)))))

    @staticmethod
    def reduce(x: Tensor, mask: Tensor) -> Tensor:
        return masked_mean(x, mask)


class MaxPool(Aggregator):
    """Largest value of each feature over the tiles, then a linear layer."""

    def __init__(self, dim: int, out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(dim, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        return Bag(self.head(self.drop(self.reduce(x, full_mask(x, mask)))))

    @staticmethod
    def reduce(x: Tensor, mask: Tensor) -> Tensor:
        largest = x.masked_fill(mask[..., None], torch.finfo(x.dtype).min).amax(1)
        return largest.masked_fill(mask.all(1, keepdim=True), 0.0)
