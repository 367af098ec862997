"""The plainest model of a cohort: a penalised regression on statistics of each case's tiles.

Cox's model of survival, logistic regression of classes, ridge regression of numbers, of one
teacher or of all of them side by side. It has a solution, so that there are no epochs, and no
validation cases are needed. What other models are worth, they are worth beyond this one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.network import Endpoint, Lesson, Network, Output, Shape
from pipeline.bags.batch import Batch
from pipeline.config.models import LinearModel
from pipeline.linear.estimators import fit
from pipeline.linear.summaries import PARTS, SUMMARIES

# Raised when predictions of `linear` change. 1: the first.
VERSION = 1

STEADY = 1e-6  # a statistic that deviates less over the training cases says nothing


class LinearOfCases(Network):
    """out = standardised statistics @ weights + constant.

    The statistics of each teacher and level are brought to mean 0 and variance 1 over the training
    cases, and divided by the root of their number, so that a wide teacher counts no more than a
    narrow one. A case without a teacher has the mean of the training cases in its place.

    Args:
        shape: teachers, widths, outputs.
        cfg: the model's config.
    """

    learns_by_gradient: ClassVar[bool] = False

    def __init__(self, shape: Shape, cfg: LinearModel) -> None:
        super().__init__(shape)
        self.cfg = cfg
        self.reads = [
            (t, level) for t, dims in enumerate(shape.dims) for level in cfg.levels if level in dims
        ]
        self.widths = [shape.dims[t][level] * PARTS[cfg.statistics] for t, level in self.reads]
        columns = sum(self.widths)
        self.register_buffer("centre", torch.zeros(columns))
        self.register_buffer("scale", torch.zeros(columns))
        self.weight = nn.Parameter(torch.zeros(columns, shape.outputs))
        self.constant = nn.Parameter(torch.zeros(shape.outputs))
        self.centre: Tensor
        self.scale: Tensor
        self.penalties: dict[str, float] = {}

    @torch.no_grad()
    def fit(self, lesson: Lesson) -> None:
        super().fit(lesson)
        self.to(lesson.store.device)
        statistics, present = self._all(lesson)
        self._standardise(statistics, present)
        whole = Endpoint("", lesson.task, slice(None), slice(None))
        x = self._standardised(statistics, present).double().cpu().numpy()
        for one in lesson.task.endpoints or (whole,):
            y = lesson.y[lesson.train][:, one.columns]
            known = ~np.isnan(y).any(axis=1)
            strata = lesson.strata if one is whole or one.name == "" else _strata(one, y)
            found, penalty = fit(
                x[known], y[known], one.task, strata[known], lesson.groups[known], lesson.seed
            )
            self.weight[:, one.outputs] = torch.from_numpy(found.weights).to(self.weight)
            self.constant[one.outputs] = torch.from_numpy(found.constant).to(self.constant)
            self.penalties[one.name] = penalty

    def columns(self, lesson: Lesson) -> np.ndarray:
        """float64 (n, columns): the standardised statistics of the training cases, once fitted."""
        return self._standardised(*self._all(lesson)).double().cpu().numpy()

    def _all(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """Statistics float32 (n, columns) of the training cases, and bool (n, T)."""
        place = {int(case): i for i, case in enumerate(lesson.train)}
        statistics = torch.zeros(len(place), len(self.centre), device=self.centre.device)
        present = torch.zeros(
            len(place), len(self.shape.teachers), dtype=torch.bool, device=self.centre.device
        )
        for batch in lesson.bags(lesson.train):
            rows = [place[case] for case in batch.cases.tolist()]
            statistics[rows], present[rows] = self._statistics(batch), batch.present
        return statistics, present

    def _standardise(self, statistics: Tensor, present: Tensor) -> None:
        """Mean and deviation of each column over the cases that have its teacher."""
        start = 0
        for (t, _), width in zip(self.reads, self.widths, strict=True):
            own = slice(start, start + width)
            start += width
            values = statistics[present[:, t], own].double()
            if not len(values):
                continue
            deviation = values.std(0, unbiased=False)
            told = 1 / (deviation.clamp(min=STEADY) * width**0.5)
            self.centre[own] = values.mean(0).to(self.centre)
            self.scale[own] = told.where(deviation > STEADY, 0.0).to(self.scale)

    def _statistics(self, batch: Batch) -> Tensor:
        """(B, columns), in float32 whatever the precision is: what was fitted is what is used."""
        with torch.autocast(batch.cases.device.type, enabled=False):
            scaled = self.scaler(batch)
            summary = SUMMARIES[self.cfg.statistics]
            parts = [
                summary(scaled[t][level], batch.masks[t], batch.emphasised(t, level))
                for t, level in self.reads
            ]
            return torch.cat(parts, dim=1)

    def _standardised(self, statistics: Tensor, present: Tensor) -> Tensor:
        """(B, columns), 0 where a case has not the teacher."""
        has = torch.cat(
            [
                present[:, t : t + 1].expand(-1, width)
                for (t, _), width in zip(self.reads, self.widths, strict=True)
            ],
            dim=1,
        )
        return ((statistics - self.centre) * self.scale).where(has, 0.0)

    def forward(self, batch: Batch) -> Output:
        x = self._standardised(self._statistics(batch), batch.present)
        with torch.autocast(batch.cases.device.type, enabled=False):
            return Output(x @ self.weight + self.constant)

    def facts(self) -> dict[str, Any]:
        return {"penalties": self.penalties}


def _strata(endpoint: Endpoint, y: np.ndarray) -> np.ndarray:
    """int64 (n,): what the inner parts of an auxiliary endpoint get their share of."""
    if endpoint.task.type == "survival":
        return (y[:, 1] > 0).astype(np.int64)
    if endpoint.task.type == "classification":
        return np.nan_to_num(y[:, 0]).astype(np.int64)
    return np.zeros(len(y), dtype=np.int64)
