"""The student against every other model, on the same cases.

The paired bootstrap of the difference is the test that counts; DeLong's test (AUC) and the
corrected resampled t-test over folds stand next to it. p values of one metric are a family (Holm).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.config.tasks import ClassificationTask
from pipeline.evaluation.bootstrap import interval, p_value
from pipeline.evaluation.metrics import Bench, Measured, higher_is_better
from pipeline.evaluation.pooling import Pool, pooled


def compare(
    student: tuple[Pool, Measured],
    others: Sequence[tuple[Pool, Measured]],
    bench: Bench,
    confidence: float,
) -> pd.DataFrame:
    """A row a metric and other model.

    Columns: student, other, metric, difference (student less other), low, high, p_value (paired
    bootstrap), p_holm (within the metric), n (cases that both predict), n_undefined (resamples
    without a difference), p_delong (AUC alone), fold_difference and p_folds (corrected resampled
    t-test), higher_is_better.
    """
    rows = []
    for other in others:
        mine, theirs, shared = _on_shared_cases(student, other, bench)
        delong = _delong(student[0], other[0], bench, shared)
        for name in (m for m in mine if "[" not in m and m in theirs):
            difference = mine[name] - theirs[name]
            between = interval(difference[1:], confidence)
            mean, p_folds = fold_test(
                student[1].folds[name] - other[1].folds[name], _test_to_train(bench)
            )
            rows.append(
                {
                    "student": student[0].name,
                    "other": other[0].name,
                    "metric": name,
                    "difference": float(difference[0]),
                    "low": between.low,
                    "high": between.high,
                    "p_value": p_value(difference[1:]),
                    "p_holm": float("nan"),
                    "n": int(shared.sum()),
                    "n_undefined": between.n_undefined,
                    "p_delong": delong if name == "auc" else float("nan"),
                    "fold_difference": mean,
                    "p_folds": p_folds,
                    "higher_is_better": higher_is_better(name),
                }
            )
    table = pd.DataFrame(rows, columns=COLUMNS)
    for name in table["metric"].unique():
        family = table["metric"] == name
        table.loc[family, "p_holm"] = holm(table.loc[family, "p_value"].to_numpy(float))
    return table


COLUMNS = [
    "student", "other", "metric", "difference", "low", "high", "p_value", "p_holm", "n",
    "n_undefined", "p_delong", "fold_difference", "p_folds", "higher_is_better",
]  # fmt: skip


def _on_shared_cases(
    student: tuple[Pool, Measured], other: tuple[Pool, Measured], bench: Bench
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]:
    """Both models' metrics on the cases that both predict, with the same resamples."""
    shared = student[1].there & other[1].there
    found = []
    for pool, measured in (student, other):
        if (measured.there == shared).all():
            found.append(measured.values)
        else:
            whole = pooled(pool, bench.labels.cases)
            found.append(bench.score(shared, whole.values, whole.curves, resampled=True))
    return found[0], found[1], shared


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment; NaN stays NaN and is no member of the family."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted


def fold_test(differences: np.ndarray, test_to_train: float) -> tuple[float, float]:
    """The corrected resampled t-test (Nadeau and Bengio 2003) over folds.

    Training parts of folds overlap, so the variance of the mean is taken as (1/k + n_test/n_train)
    times that of the differences.

    Args:
        differences: (k,), one a fold; NaN where a fold has none.
        test_to_train: cases tested per case trained on.

    Returns:
        the mean difference, and the two-sided p value (NaN with fewer than two folds).
    """
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return float("nan"), float("nan")
    mean = float(defined.mean())
    if len(defined) < 2:
        return mean, float("nan")
    variance = float(defined.var(ddof=1)) * (1 / len(defined) + test_to_train)
    if variance == 0:
        return mean, 1.0 if mean == 0 else float("nan")
    return mean, float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), len(defined) - 1))


def _test_to_train(bench: Bench) -> float:
    return float(np.mean([len(fold.test) / len(fold.train) for fold in bench.folds]))


def _delong(student: Pool, other: Pool, bench: Bench, shared: np.ndarray) -> float:
    label = bench.labels.label
    if not isinstance(bench.task, ClassificationTask) or label is None:
        return float("nan")
    first, second = (pooled(pool, bench.labels.cases).values[shared] for pool in (student, other))
    return delong_test(label[shared], first, second)


def delong_test(label: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Two-sided p value that two models' AUCs are equal (DeLong, DeLong and Clarke-Pearson 1988).

    With more than two classes, of the macro average: the components of a case are averaged over
    the classes before the variance is taken.

    Args:
        label: int64 (n,).
        first, second: (n, classes), probabilities of the two models for the same cases.

    Returns:
        NaN where a class is absent or stands alone.
    """
    auc_first, parts_first = delong_components(label, first)
    auc_second, parts_second = delong_components(label, second)
    variance = float(((parts_first - parts_second) ** 2).sum())
    difference = auc_first - auc_second
    if not np.isfinite(variance):
        return float("nan")
    if variance <= 1e-20:
        return 1.0 if abs(difference) < 1e-12 else 0.0
    return float(2 * stats.norm.sf(abs(difference) / np.sqrt(variance)))


def delong_components(label: np.ndarray, values: np.ndarray) -> tuple[float, np.ndarray]:
    """The macro AUC, and what each case adds to it, scaled so that squares sum to its variance.

    Returns:
        the AUC and float64 (n,); NaN where a class has fewer than two members or non-members.
    """
    classes = values.shape[1]
    aucs, parts = [], np.zeros(len(label))
    for c in range(classes):
        positive = label == c
        m, n = int(positive.sum()), int((~positive).sum())
        if m < 2 or n < 2:
            return float("nan"), np.full(len(label), np.nan)
        midrank = stats.rankdata(values[:, c])
        own = np.empty(len(label))
        own[positive] = stats.rankdata(values[positive, c])
        own[~positive] = stats.rankdata(values[~positive, c])
        wins = (midrank - own) / np.where(positive, n, m)
        placement = np.where(positive, wins, 1 - wins)
        auc = float(placement[positive].mean())
        scale = np.where(positive, np.sqrt(m * (m - 1)), np.sqrt(n * (n - 1)))
        parts += (placement - auc) / scale / classes
        aucs.append(auc)
    return float(np.mean(aucs)), parts
