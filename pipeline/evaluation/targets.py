"""Many regression targets (gene expression by name): each over cases, and each case over them.

Pearson's r of a target says whether the model ranks patients by it; that of a case, over targets
scaled by the training part, whether it knows what sets the patient apart from the average one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.config.tasks import RegressionTask
from pipeline.contracts.labels import Labels
from pipeline.evaluation.metrics import Bench
from pipeline.evaluation.pooling import Pool, pooled
from pipeline.evaluation.regression_metrics import blocks, target_metrics


def target_table(pools: Sequence[Pool], bench: Bench, confidence: float) -> pd.DataFrame | None:
    """One row per model and target; None with fewer than two targets.

    Columns: model, target, pearson, pearson_low, pearson_high (bootstrap over cases), p_value (of
    r = 0, two-sided, exact for normal errors), q_value (Benjamini and Hochberg 1995, over the
    model's targets), spearman, r2, mae, rmse, pearson_folds (mean of the folds' own), n. NaN where
    a target or its prediction is constant.

    Args:
        pools: of each model, averaged over seeds.
        bench: cases, labels and resamples.
        confidence: coverage of the intervals, e.g. 0.95.
    """
    task = bench.task
    if not isinstance(task, RegressionTask) or len(task.targets) < 2:
        return None
    return pd.concat([_of_model(pool, bench, confidence) for pool in pools], ignore_index=True)


def _of_model(pool: Pool, bench: Bench, confidence: float) -> pd.DataFrame:
    assert isinstance(bench.task, RegressionTask) and bench.labels.targets is not None
    whole = pooled(pool, bench.labels.cases)
    there, tail = whole.there, (1 - confidence) / 2
    n = int(there.sum())
    parts = []
    for block in blocks(len(bench.task.targets), len(bench.weights)):
        true, predicted = bench.labels.targets[there, block], whole.values[there, block]
        each = target_metrics(true, predicted, bench.weights[:, there])
        resampled = each["pearson"][1:]
        defined = np.isfinite(resampled).mean(axis=0) >= 0.5
        low, high = np.nanquantile(np.where(defined, resampled, 0), [tail, 1 - tail], axis=0)
        parts.append(
            pd.DataFrame(
                {
                    "model": pool.name,
                    "target": bench.task.targets[block],
                    "pearson": each["pearson"][0],
                    "pearson_low": np.where(defined, low, np.nan),
                    "pearson_high": np.where(defined, high, np.nan),
                    "p_value": correlation_p(each["pearson"][0], n),
                    "spearman": _spearman(true, predicted),
                    **{name: each[name][0] for name in ("r2", "mae", "rmse")},
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table.insert(6, "q_value", benjamini_hochberg(table["p_value"].to_numpy()))
    return table.assign(pearson_folds=_over_folds(pool, bench), n=n)


def _spearman(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Rank correlation of each column: float64 (t,), NaN where one is constant."""
    ranks = (stats.rankdata(true, axis=0), stats.rankdata(predicted, axis=0))
    return target_metrics(*ranks, np.ones((1, len(true))))["pearson"][0]


def _over_folds(pool: Pool, bench: Bench) -> np.ndarray:
    """Mean over the folds of each target's Pearson on the fold's own test cases."""
    assert bench.labels.targets is not None
    found = []
    for fold in bench.folds:
        part = pooled(pool, bench.labels.cases, fold=fold.index)
        if part.there.sum() > 1:
            true, said = bench.labels.targets[part.there], part.values[part.there]
            found.append(target_metrics(true, said, np.ones((1, len(true))))["pearson"][0])
    stacked = np.array(found)
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def correlation_p(r: np.ndarray, n: int) -> np.ndarray:
    """Two-sided p values of Pearson correlations of n pairs, by Student's t with n - 2 degrees."""
    if n < 3:
        return np.full(len(r), np.nan)
    with np.errstate(divide="ignore"):
        t = np.abs(r) * np.sqrt((n - 2) / (1 - r**2))
    p: np.ndarray = 2 * stats.t.sf(t, n - 2)
    return p


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p values that bound the false discovery rate; NaN stays NaN and does not count."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.isfinite(p_values)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p_values[known], method="bh")
    return adjusted


def case_table(pools: Sequence[Pool], bench: Bench, labels: Labels) -> pd.DataFrame | None:
    """One row per model and case: how well the profile of the case over the targets is predicted.

    Measured and predicted values are scaled by mean and deviation of the training cases of the fold
    that tests the case.

    Args:
        pools: the models.
        bench: the tested cases.
        labels: of all cases, those that are never tested among them.

    Returns:
        columns model, case_id, pearson, n_targets (that vary in training); None with fewer than
        three targets.
    """
    task = bench.task
    if not isinstance(task, RegressionTask) or len(task.targets) < 3:
        return None
    assert labels.targets is not None and bench.labels.targets is not None
    row_of = {case: i for i, case in enumerate(labels.cases)}
    place = {case: i for i, case in enumerate(bench.labels.cases)}
    mean = np.zeros_like(bench.labels.targets)
    deviation = np.zeros_like(bench.labels.targets)
    for fold in bench.folds:
        train = labels.targets[[row_of[case] for case in fold.train]]
        rows = [place[case] for case in fold.test]
        mean[rows], deviation[rows] = train.mean(axis=0), train.std(axis=0)
    varies = deviation > 1e-12
    scale = np.where(varies, deviation, 1)
    true = np.where(varies, (bench.labels.targets - mean) / scale, np.nan)
    tables = []
    for pool in pools:
        whole = pooled(pool, bench.labels.cases)
        said = np.where(varies, (whole.values - mean) / scale, np.nan)
        tables.append(
            pd.DataFrame(
                {
                    "model": pool.name,
                    "case_id": list(bench.labels.cases),
                    "pearson": [_profile(t, p) for t, p in zip(true, said, strict=True)],
                    "n_targets": varies.sum(axis=1),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _profile(true: np.ndarray, said: np.ndarray) -> float:
    """Pearson's r of two profiles over the targets that both have; NaN where one is flat."""
    known = np.isfinite(true) & np.isfinite(said)
    if known.sum() < 3:
        return float("nan")
    one = np.ones((1, int(known.sum())))
    return float(target_metrics(true[known, None], said[known, None], one)["pearson"][0, 0])
