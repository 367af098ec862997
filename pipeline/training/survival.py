"""Survival heads: discrete-time hazards, Cox and ranking."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.labels import Labels
from pipeline.errors import UserError
from pipeline.training import nll
from pipeline.training.cox import cox_loss
from pipeline.training.metrics import concordance
from pipeline.training.ranking import ranking_loss

# Raised when predictions of every survival task change. 1: the first.
VERSION = 1

EVENT = 1  # the stratum that a loss on risk sets or pairs cannot do without


@dataclasses.dataclass(frozen=True)
class NllHead:
    """Hazards of K bins. Targets: time, event, bin."""

    metric_name = "C-index"

    edges: tuple[float, ...]
    alpha: float
    kind: ClassVar[str] = "nll"
    needed: ClassVar[int | None] = None
    one_question: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return len(self.edges) + 1

    @classmethod
    def fit(cls, task: SurvivalTask, labels: Labels, train: np.ndarray) -> NllHead:
        time, event = _survival(labels)
        _need_event(event[train])
        edges = nll.fit_edges(time[train], event[train], task.bins)
        return cls(tuple(float(e) for e in edges), task.alpha)

    def targets(self, labels: Labels) -> np.ndarray:
        time, event = _survival(labels)
        bins = nll.to_bins(time, np.array(self.edges))
        return np.stack([time, event, bins], axis=1).astype(np.float32)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return nll.nll_loss(out, y[:, 2].long(), y[:, 1], self.alpha)

    def null(self, y: np.ndarray) -> np.ndarray:
        return nll.constant_logits(y[:, 2].astype(np.int64), y[:, 1], self.outputs, self.alpha)

    def evidence(self, out: np.ndarray, y: np.ndarray) -> float:
        return -len(y) * float(self.loss(torch.from_numpy(out), torch.from_numpy(y)))

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        return concordance(self.score(out), y[:, 0], y[:, 1])

    def strata(self, y: np.ndarray) -> np.ndarray:
        return y[:, 1].astype(np.int64)

    def classes_of(self, y: Tensor) -> Tensor | None:
        return None

    def score(self, out: np.ndarray) -> np.ndarray:
        return nll.risk(torch.from_numpy(out).double()).numpy()

    def lead(self, out: Tensor) -> Tensor:
        return nll.risk(out)

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        survival = nll.survival(torch.from_numpy(out).double()).numpy()
        edges = {f"surv_{j + 1}": survival[:, j] for j in range(len(self.edges))}
        return {
            "risk": self.score(out),
            "time": y[:, 0].astype(np.float64),
            "event": y[:, 1].astype(np.int64),
            **edges,
        }

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "bin_edges": list(self.edges), "alpha": self.alpha}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> NllHead:
        return cls(tuple(facts["bin_edges"]), facts["alpha"])


@dataclasses.dataclass(frozen=True)
class RiskHead:
    """One number a case, its risk. Targets: time, event. Subclasses have the loss."""

    metric_name = "C-index"

    kind: ClassVar[str]
    needed: ClassVar[int | None] = EVENT
    one_question: ClassVar[bool] = False

    @property
    def outputs(self) -> int:
        return 1

    def targets(self, labels: Labels) -> np.ndarray:
        return np.stack(_survival(labels), axis=1).astype(np.float32)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def null(self, y: np.ndarray) -> np.ndarray:
        return np.zeros(1)

    def evidence(self, out: np.ndarray, y: np.ndarray) -> float:
        events = float(y[:, 1].sum())
        if not events:
            return 0.0
        return -events * float(self.loss(torch.from_numpy(out), torch.from_numpy(y)))

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
        return {"kind": self.kind}


@dataclasses.dataclass(frozen=True)
class CoxHead(RiskHead):
    """Log relative hazard."""

    ties: Literal["breslow", "efron"]
    kind: ClassVar[str] = "cox"

    @classmethod
    def fit(cls, task: SurvivalTask, labels: Labels, train: np.ndarray) -> CoxHead:
        _, event = _survival(labels)
        _need_event(event[train])
        return cls(task.ties)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return cox_loss(out[:, 0], y[:, 0], y[:, 1], self.ties)

    def facts(self) -> dict[str, Any]:
        return {"kind": self.kind, "ties": self.ties}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> CoxHead:
        return cls(facts["ties"])


@dataclasses.dataclass(frozen=True)
class RankingHead(RiskHead):
    """A score that only orders the cases."""

    kind: ClassVar[str] = "ranking"

    @classmethod
    def fit(cls, task: SurvivalTask, labels: Labels, train: np.ndarray) -> RankingHead:
        _, event = _survival(labels)
        _need_event(event[train])
        return cls()

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return ranking_loss(out[:, 0], y[:, 0], y[:, 1])

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> RankingHead:
        return cls()


HEADS: dict[str, type[NllHead] | type[CoxHead] | type[RankingHead]] = {
    head.kind: head for head in (NllHead, CoxHead, RankingHead)
}


def _survival(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    assert labels.time is not None and labels.event is not None
    return labels.time, labels.event


def _need_event(event: np.ndarray) -> None:
    if not event.any():
        raise UserError(
            f"the training part has {len(event)} cases and no event, so survival cannot be "
            "learned; use fewer folds (folds.k) or more cases"
        )
