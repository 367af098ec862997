"""Survival heads: a risk that a registered loss compares, or a head that a loss brings with it."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pipeline.config.tasks import SurvivalTask, losses
from pipeline.contracts.labels import Labels
from pipeline.errors import UserError
from pipeline.training.head import Head
from pipeline.training.metrics import concordance

# Raised when predictions of every survival task change. 1: the first.
VERSION = 1

EVENT = 1  # the stratum that a loss on risk sets or pairs cannot do without


def fit(task: SurvivalTask, labels: Labels, train: np.ndarray) -> Head:
    """The head of a survival task, fitted on the training rows.

    A loss that is a function compares one risk a case with times and events; one that is a class
    is itself the head, with outputs of its own.

    Args:
        task: the task, which names the loss.
        labels: of all cases.
        train: rows to fit on.

    Raises:
        UserError: there is no event among them.
    """
    _, event = times_and_events(labels)
    if not event[train].any():
        raise UserError(
            f"the training part has {len(train)} cases and no event, so survival cannot be "
            "learned; use fewer folds (folds.k) or more cases"
        )
    made = losses("survival")[task.loss].load()
    if not inspect.isfunction(made):
        return made.fit(labels, train, **task.arguments())
    return RiskHead(task.loss, task.arguments())


def from_facts(facts: Mapping[str, Any]) -> Head:
    """The survival head that a meta.json describes."""
    entry = losses("survival")[facts["kind"]]
    made = entry.load()
    if not inspect.isfunction(made):
        return made.from_facts(facts)
    return RiskHead(facts["kind"], {key: facts.get(key, d) for key, d in entry.defaults.items()})


@dataclasses.dataclass(frozen=True)
class RiskHead:
    """One number a case, its risk, higher = worse. Targets: time, event.

    Attributes:
        kind: name of the loss, a function of risk, time and event, each (B,).
        arguments: the loss's own keys.
    """

    metric_name = "C-index"

    kind: str
    arguments: Mapping[str, Any]
    needed: ClassVar[int | None] = EVENT

    @property
    def outputs(self) -> int:
        return 1

    def targets(self, labels: Labels) -> np.ndarray:
        return np.stack(times_and_events(labels), axis=1).astype(np.float32)

    @cached_property
    def _function(self) -> Callable[..., Tensor]:
        return losses("survival")[self.kind].load()

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return self._function(out[:, 0], y[:, 0], y[:, 1], **self.arguments)

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        return concordance(out[:, 0], y[:, 0], y[:, 1])

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y[:, 1].astype(np.int64)

    def classes_of(self, y: Tensor) -> Tensor | None:
        return None

    def score(self, out: np.ndarray) -> np.ndarray:
        return out[:, 0].astype(np.float64)

    def lead(self, out: Tensor) -> Tensor:
        return out[:, 0]

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "risk": self.score(out),
            "time": y[:, 0].astype(np.float64),
            "event": y[:, 1].astype(np.int64),
        }

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.arguments}


def times_and_events(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Follow-up times, float (n,), and whether the event happened, bool (n,)."""
    assert labels.time is not None and labels.event is not None
    return labels.time, labels.event
