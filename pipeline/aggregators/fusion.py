"""The baselines a student must beat: one teacher, all concatenated, the mean of their heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.aggregators.base import Aggregator, Bag, Weighing
from pipeline.aggregators.build import build
from pipeline.aggregators.network import Network, Output, Shape
from pipeline.bags.batch import Batch

# Raised when predictions of a kind of model change, whatever its aggregator.
VERSIONS = {"single": 1, "mean": 1, "concat": 1}

LEVELS = ("low", "mid", "high")


class PerTeacher(Network):
    """One aggregator per teacher and level; subclasses say how their outputs become one.

    Args:
        shape: teachers, the levels that are read with their widths, outputs.
        aggregator: name of the MIL model.
        arguments: the aggregator's own.
        out: outputs of each aggregator.
    """

    def __init__(
        self,
        shape: Shape,
        aggregator: str,
        arguments: Mapping[str, Any],
        out: int,
    ) -> None:
        super().__init__(shape)
        # In an order of their own: that of a description read from a file is another.
        self.pairs = [
            (t, level) for t, dims in enumerate(shape.dims) for level in LEVELS if level in dims
        ]
        self.aggregators = nn.ModuleList(
            build(aggregator, shape.dims[t][level], out, **arguments) for t, level in self.pairs
        )

    def pooled(self, batch: Batch) -> list[Bag]:
        scaled = self.scaler(batch)
        bags = []
        for (t, level), model in zip(self.pairs, self.aggregators, strict=True):
            x, mask = scaled[t][level], batch.masks[t]
            emphasis = batch.emphasised(t, level)
            weighs = emphasis is not None and isinstance(model, Weighing)
            bags.append(model(x, mask, emphasis) if weighs else model(x, mask))
        return bags

    def combine(self, outputs: Tensor, present: Tensor) -> Tensor:
        """(B, P, out) of each teacher and level and bool (B, P) -> (B, C)."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Output:
        bags = self.pooled(batch)
        present = batch.present[:, [t for t, _ in self.pairs]]
        out = self.combine(torch.stack([bag.out for bag in bags], dim=1), present)
        attention = {
            pair: shares(bag.scores)
            for pair, bag in zip(self.pairs, bags, strict=True)
            if bag.scores is not None
        }
        return Output(out, attention, bags=tuple(bags))

    def extra_loss(self, output: Output, batch: Batch, classes: Tensor | None) -> Tensor | None:
        if classes is None:
            return None
        losses = []
        for (t, _), model, bag in zip(self.pairs, self.aggregators, output.bags, strict=True):
            assert isinstance(model, Aggregator)
            loss = model.instance_loss(bag, batch.masks[t], classes)
            if loss is not None:
                losses.append(loss)
        return torch.stack(losses).mean() * INSTANCE_WEIGHT if losses else None


INSTANCE_WEIGHT = 0.3 / 0.7  # CLAM: 0.7 bag loss + 0.3 instance loss


class Mean(PerTeacher):
    """The mean of one head per teacher and level; with one teacher, the single-teacher baseline.

    Args:
        shape: teachers, the levels that are read with their widths, outputs.
        aggregator: name of the MIL model.
        arguments: the aggregator's own.
    """

    def __init__(self, shape: Shape, aggregator: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(shape, aggregator, arguments, shape.outputs)

    def combine(self, outputs: Tensor, present: Tensor) -> Tensor:
        weights = present.to(outputs.dtype)
        weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
        return (outputs * weights[..., None]).sum(1)


class Concat(PerTeacher):
    """Pooled vectors side by side, then a head; a missing teacher is a learned vector.

    Args:
        shape, aggregator, arguments: as in PerTeacher.
        d_model: width of each vector and of the head.
        dropout: of the vectors.
    """

    def __init__(
        self,
        shape: Shape,
        aggregator: str,
        arguments: Mapping[str, Any],
        d_model: int,
        dropout: float,
    ) -> None:
        super().__init__(shape, aggregator, arguments, d_model)
        vectors = len(self.pairs)
        self.absent = nn.Parameter(torch.zeros(vectors, d_model))
        self.head = nn.Sequential(
            nn.LayerNorm(vectors * d_model),
            nn.Dropout(dropout),
            nn.Linear(vectors * d_model, d_model),
            nn.ReLU(),
            nn.Linear(d_model, shape.outputs),
        )

    def combine(self, outputs: Tensor, present: Tensor) -> Tensor:
        filled = torch.where(present[..., None], outputs, self.absent)
        return self.head(filled.flatten(1))


def shares(scores: Tensor) -> Tensor:
    """Instance scores (B, N) as shares that sum to 1 in each bag (0 in an empty one)."""
    return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
