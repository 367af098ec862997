"""Which metrics a task has, and the bench that measures every model on the same resamples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
import pandas as pd

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.folds import Fold
from pipeline.contracts.labels import Labels, Task
from pipeline.evaluation.bootstrap import interval
from pipeline.evaluation.classification_metrics import ClassificationScorer
from pipeline.evaluation.pooling import Pool, pooled
from pipeline.evaluation.regression_metrics import RegressionScorer
from pipeline.evaluation.survival_metrics import SurvivalScorer, TimePoints

PRIMARY = {"survival": "c_index", "classification": "auc", "regression": "r2"}
LOWER_IS_BETTER = frozenset({"integrated_brier", "brier", "log_loss", "ece", "mae", "rmse"})
LEAST_CASES = 2
Draws = Literal["none", "cases", "folds"]


class Scorer(Protocol):
    """All metrics of one model under many weightings of the cases."""

    def __call__(self, values: np.ndarray, curves: np.ndarray | None) -> dict[str, np.ndarray]:
        """`values` (n, d) and survival at the grid (n, t) -> name -> float64 (b,)."""
        ...


def higher_is_better(metric: str) -> bool:
    return metric.partition("[")[0] not in LOWER_IS_BETTER


def scorer(task: Task, labels: Labels, weights: np.ndarray, points: TimePoints | None) -> Scorer:
    """The metrics of a task for the given cases and weights (b, n).

    Args:
        task: the task.
        labels: of the n cases.
        weights: float64 (b, n), how often each case counts in each resample.
        points: times at which survival is measured; None for other tasks.
    """
    if isinstance(task, SurvivalTask):
        assert labels.time is not None and labels.event is not None and points is not None
        return SurvivalScorer(labels.time, labels.event, weights, points)
    if isinstance(task, ClassificationTask):
        assert labels.label is not None
        ordered = task.classes is not None
        return ClassificationScorer(labels.label, len(labels.classes), weights, ordered)
    assert isinstance(task, RegressionTask) and labels.targets is not None
    return RegressionScorer(labels.targets, list(task.targets), weights)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One model on the bench.

    Attributes:
        name: the model.
        there: bool (n,), the cases that it predicts.
        values: metric -> float64 (resamples + 1,); entry 0 is the estimate. NaN where undefined.
        folds: metric -> float64 (folds,), each on its own test cases.
        tested: bool (folds, n), the cases that it predicts in each fold's test part.
        seeds: metric -> float64 (seeds,), each seed's pooled predictions.
    """

    name: str
    there: np.ndarray
    values: dict[str, np.ndarray]
    folds: dict[str, np.ndarray]
    tested: np.ndarray
    seeds: dict[str, np.ndarray]


class Bench:
    """The evaluated cases, their labels and resamples, the same for every model.

    Args:
        task: the task.
        labels: of the evaluated cases, in the order of all arrays here.
        weights: (resamples + 1, n), row 0 all ones.
        points: times, for survival.
        folds: the task's folds.
        redrawn: resamples of folds and of their cases, (resamples + 1, n), row 0 all ones; None
            where test parts overlap, or there is only one.
        fixed: the cases had no part in the training, and the models are taken as they are.
    """

    def __init__(
        self,
        task: Task,
        labels: Labels,
        weights: np.ndarray,
        points: TimePoints | None,
        folds: Sequence[Fold],
        redrawn: np.ndarray | None,
        fixed: bool = False,
    ) -> None:
        self.task, self.labels, self.weights = task, labels, weights
        self.points, self.folds, self.fixed = points, folds, fixed
        self._redrawn = redrawn
        self._scorers: dict[tuple[bytes, Draws], Scorer] = {}

    @property
    def draws_folds(self) -> bool:
        """Whether folds can be drawn as cases can."""
        return self._redrawn is not None

    def score(
        self,
        rows: np.ndarray,
        values: np.ndarray,
        curves: np.ndarray | None,
        draws: Draws = "none",
    ) -> dict[str, np.ndarray]:
        """All metrics on some of the cases; empty where there are too few.

        Args:
            rows: bool (n,), which cases.
            values, curves: of all cases.
            draws: which resamples come after the estimate.
        """
        if rows.sum() < LEAST_CASES:
            return {}
        key = (rows.tobytes(), draws)
        if key not in self._scorers:
            weights = self.weights if draws == "cases" else self.weights[:1]
            if draws == "folds":
                assert self._redrawn is not None
                weights = self._redrawn
            self._scorers[key] = scorer(
                self.task, self.labels.take(np.flatnonzero(rows)), weights[:, rows], self.points
            )
        return self._scorers[key](values[rows], None if curves is None else curves[rows])

    def measure(self, pool: Pool) -> Measured:
        """A model's metrics: over all cases with resamples, by fold, and by seed."""
        cases = self.labels.cases
        whole = pooled(pool, cases)
        parts = [pooled(pool, cases, fold=fold.index) for fold in self.folds]
        by_fold = [self.score(part.there, part.values, part.curves) for part in parts]
        by_seed = []
        for seed in sorted(set(pool.table["seed"])):
            part = pooled(pool, cases, seed=seed)
            by_seed.append(self.score(part.there, part.values, part.curves))
        values = self.score(whole.there, whole.values, whole.curves, "cases")
        return Measured(
            name=pool.name,
            there=whole.there,
            values=values,
            folds=by_name(by_fold, values),
            tested=np.array([part.there for part in parts]),
            seeds=by_name(by_seed, values),
        )

    def validation(self, pool: Pool) -> float:
        """The primary metric on the validation parts, mean over the folds where it is defined."""
        found = []
        for fold in self.folds:
            part = pooled(pool, self.labels.cases, split="val", fold=fold.index)
            found.append(self.score(part.there, part.values, part.curves))
        values = [one[PRIMARY[self.task.type]][0] for one in found if one]
        defined = [v for v in values if np.isfinite(v)]
        return float(np.mean(defined)) if defined else float("nan")


def by_name(
    scores: Sequence[Mapping[str, np.ndarray]], names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Estimates of several measurements: metric -> float64 (measurements,), NaN where undefined."""
    return {
        name: np.array([one[name][0] if name in one else np.nan for one in scores])
        for name in names
    }


def metric_table(measured: Sequence[Measured], bench: Bench, confidence: float) -> pd.DataFrame:
    """One row per model and metric.

    Columns: model, metric, value, low, high, n (cases with a prediction), n_events (survival),
    n_missing (cases without), n_undefined (resamples without a value), fold_mean, fold_std
    (ddof 1), n_folds (where it is defined), seed_mean, seed_std, higher_is_better.

    Args:
        measured: the models' measures.
        bench: cases, labels and resamples.
        confidence: coverage of the intervals, e.g. 0.95.
    """
    names = list(dict.fromkeys(name for one in measured for name in one.values))
    event = bench.labels.event
    rows = []
    for one in measured:
        for name in names:
            values = one.values.get(name, np.full(len(bench.weights), np.nan))
            between = interval(values[1:], confidence)
            rows.append(
                {
                    "model": one.name,
                    "metric": name,
                    "value": float(values[0]),
                    "low": between.low,
                    "high": between.high,
                    "n": int(one.there.sum()),
                    "n_events": None if event is None else int(event[one.there].sum()),
                    "n_missing": int((~one.there).sum()),
                    "n_undefined": between.n_undefined,
                    **_spread("fold", one.folds.get(name)),
                    **_spread("seed", one.seeds.get(name)),
                    "higher_is_better": higher_is_better(name),
                }
            )
    return pd.DataFrame(rows).astype({"n_events": "Int64"})


def _spread(of: str, values: np.ndarray | None) -> dict[str, float | int]:
    defined = np.empty(0) if values is None else values[np.isfinite(values)]
    return {
        f"{of}_mean": float(defined.mean()) if len(defined) else float("nan"),
        f"{of}_std": float(defined.std(ddof=1)) if len(defined) > 1 else float("nan"),
        f"n_{of}s": len(defined),
    }
