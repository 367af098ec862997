"""Regression head: targets standardised by the training part, which a registered loss compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pipeline.config.tasks import RegressionTask, default_loss, losses
from pipeline.contracts.labels import Labels
from pipeline.training.metrics import mean_pearson

# Raised when predictions of regression tasks change. 1: the first.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class RegressionHead:
    """One output a target, in units of its training deviation. Targets: standardised values.

    Attributes:
        names: target columns, in the order of the outputs.
        mean, deviation: of the training part; a constant target has deviation 1.
        loss_name: a function of outputs and targets, both (B, T).
        arguments: the loss's own keys.
    """

    metric_name = "correlation"

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    loss_name: str
    arguments: Mapping[str, Any]
    kind: ClassVar[str] = "regression"
    needed: ClassVar[int | None] = None

    @property
    def outputs(self) -> int:
        return len(self.names)

    @classmethod
    def fit(cls, task: RegressionTask, labels: Labels, train: np.ndarray) -> RegressionHead:
        """The head of a task, fitted on the training rows.

        Args:
            task: the task.
            labels: of all cases.
            train: rows to fit on.
        """
        assert labels.targets is not None
        values = labels.targets[train]
        deviation = values.std(0)
        deviation = np.where(deviation > 1e-12, deviation, 1.0)
        return cls(
            tuple(task.targets),
            tuple(float(v) for v in values.mean(0)),
            tuple(float(v) for v in deviation),
            task.loss,
            task.arguments(),
        )

    def targets(self, labels: Labels) -> np.ndarray:
        assert labels.targets is not None
        scaled = (labels.targets - np.array(self.mean)) / np.array(self.deviation)
        return scaled.astype(np.float32)

    @cached_property
    def _function(self) -> Callable[..., Tensor]:
        return losses(self.kind)[self.loss_name].load()

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return self._function(out, y, **self.arguments)

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        return mean_pearson(out, y)

    def strata(self, y: np.ndarray) -> np.ndarray:
        """Thirds of the first target, so that each batch spans its range."""
        first = y[:, 0]
        return np.searchsorted(np.quantile(first, [1 / 3, 2 / 3]), first).astype(np.int64)

    def classes_of(self, y: Tensor) -> Tensor | None:
        return None

    def score(self, out: np.ndarray) -> np.ndarray:
        return out[:, 0].astype(np.float64)

    def lead(self, out: Tensor) -> Tensor:
        return out[:, 0] * self.deviation[0]

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        columns: dict[str, np.ndarray] = {}
        scales = zip(self.names, self.mean, self.deviation, strict=True)
        for i, (name, mean, deviation) in enumerate(scales):
            columns[f"pred_{name}"] = out[:, i].astype(np.float64) * deviation + mean
            columns[f"true_{name}"] = y[:, i].astype(np.float64) * deviation + mean
        return columns

    def facts(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "targets": list(self.names),
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "loss": self.loss_name,
            **self.arguments,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> RegressionHead:
        loss = facts.get("loss", default_loss(cls.kind))
        defaults = losses(cls.kind)[loss].defaults
        arguments = {key: facts.get(key, default) for key, default in defaults.items()}
        names, mean, deviation = (tuple(facts[k]) for k in ("targets", "mean", "deviation"))
        return cls(names, mean, deviation, loss, arguments)
