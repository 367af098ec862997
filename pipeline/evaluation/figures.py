"""`curves.json`: the points of all figures of a task, by kind of figure, then by model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.evaluation.curves import classification_curves, scatter
from pipeline.evaluation.metrics import Bench, Measured
from pipeline.evaluation.pooling import Pool, pooled
from pipeline.evaluation.regression_metrics import target_metrics
from pipeline.evaluation.survival_curves import kaplan_meier_panel, survival_calibration, ticks

Model = tuple[Pool, Measured]
DRAWN = 9  # regression targets that have points


def figure_points(
    models: Sequence[Model], groups: Mapping[str, np.ndarray], bench: Bench, cfg: EvaluationConfig
) -> dict[str, Any]:
    """All points of a task.

    Args:
        models: with their measurements.
        groups: survival: model -> risk group of each case, -1 without a prediction.
        bench: the cases.
        cfg: the stage's config.

    Returns:
        survival: `kaplan_meier`: model -> panel (`survival_curves.kaplan_meier_panel`) and
        `calibration`: model -> `t = <time>` -> points. classification: `roc`, `precision_recall`,
        `calibration`, `decision`: model -> class -> points; `confusion`: model -> classes, counts.
        regression: `scatter`: model -> target -> points, of at most DRAWN targets.
    """
    task, labels = bench.task, bench.labels
    found: dict[str, dict[str, Any]] = {}
    drawn = _drawn_targets(models, bench, cfg.student)
    for pool, _ in models:
        whole = pooled(pool, labels.cases)
        there = whole.there
        if not there.any():
            continue
        if isinstance(task, SurvivalTask):
            assert labels.time is not None and labels.event is not None
            time, event = labels.time[there], labels.event[there]
            panel = kaplan_meier_panel(
                time,
                event,
                whole.values[there, 0],
                groups[pool.name][there],
                cfg.cutoff,
                ticks(float(labels.time.max())),
                cfg.confidence,
            )
            kinds = {"kaplan_meier": panel}
            if whole.curves is not None:
                curves = whole.curves[there]
                kinds["calibration"] = _calibration(time, event, curves, bench, cfg.confidence)
        elif isinstance(task, ClassificationTask):
            kinds = classification_curves(labels, whole, cfg.confidence)
        else:
            kinds = {"scatter": scatter(labels, whole, list(task.targets), drawn)}
        for kind, points in kinds.items():
            found.setdefault(kind, {})[pool.name] = points
    return found


def _drawn_targets(models: Sequence[Model], bench: Bench, student: str) -> list[str]:
    """The targets whose points are kept: all of few; of many the student's best, middle and worst
    by Pearson's r, three each, best first."""
    if not isinstance(bench.task, RegressionTask):
        return []
    names = list(bench.task.targets)
    (pool,) = [pool for pool, _ in models if pool.name == student]
    whole = pooled(pool, bench.labels.cases)
    if len(names) <= DRAWN or not whole.there.any():
        return names[:DRAWN]
    assert bench.labels.targets is not None
    true, said = bench.labels.targets[whole.there], whole.values[whole.there]
    r = target_metrics(true, said, np.ones((1, len(true))))["pearson"][0]
    order = np.argsort(-np.nan_to_num(r, nan=-2), kind="stable")
    order = order[: int(np.isfinite(r).sum())] if np.isfinite(r).sum() >= DRAWN else order
    middle = (len(order) - DRAWN // 3) // 2
    third = DRAWN // 3
    kept = [*order[:third], *order[middle : middle + third], *order[-third:]]
    return [names[t] for t in kept]


def _calibration(
    time: np.ndarray, event: np.ndarray, curves: np.ndarray, bench: Bench, confidence: float
) -> dict[str, Any]:
    assert bench.points is not None
    grid = np.array(bench.points.grid)
    inside = [h for h in bench.points.horizons if grid[0] <= h <= grid[-1]]
    return {
        f"t = {h:.4g}": survival_calibration(
            time, event, np.array([np.interp(h, grid, row) for row in curves]), h, confidence
        )
        for h in inside
    }


def forest(metrics: pd.DataFrame, comparisons: pd.DataFrame, primary: str) -> dict[str, Any]:
    """A forest plot by the primary metric: each model, and the student less each other model.

    Args:
        metrics: one row per model and metric.
        comparisons: one row per metric and other model.
        primary: name of the primary metric.
    """
    shown = metrics[metrics["metric"] == primary]
    against = comparisons[comparisons["metric"] == primary]
    return {
        "metric": primary,
        "models": _records(shown, ["model", "value", "low", "high"]),
        "differences": _records(
            against, ["other", "difference", "low", "high", "p_value", "p_holm"]
        ),
    }


def _records(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = jsonable(table[columns].to_dict("records"))
    return rows


def jsonable(value: Any) -> Any:
    """Plain Python, with None for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(v) for v in value]
    if value is None or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
