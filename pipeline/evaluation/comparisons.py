"""The student against every other model, on the same cases.

The test that decides draws folds and then cases of each (`bootstrap.resample_folds`, `widened`),
since another training would have given other models: of two models of equal true skill it calls one
better or worse in at most 5 % of cohorts, which tests that take the trained models as given do not
(docs/statistics.md, benchmarks/verdict_error.py). Where test parts overlap, it is the corrected
resampled t-test over them; one split has no such test. Its p values of one metric are a family
(Holm). The paired bootstrap over cases and DeLong's test (AUC) stand next to it.

On an external cohort, whose cases no model has learned from, the models are given, and the paired
bootstrap over cases is the test that decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from pipeline.config.tasks import ClassificationTask
from pipeline.evaluation.bootstrap import interval, p_value, widened
from pipeline.evaluation.delong import delong_test
from pipeline.evaluation.metrics import Bench, Measured, by_name, higher_is_better
from pipeline.evaluation.pooling import Pool, pooled

LEVEL = 0.05  # of the adjusted p value, up to which a difference is believed
Verdict = Literal["better", "worse", "open", "untested"]

COLUMNS = [
    "student", "other", "metric", "difference", "low", "high", "p_value", "p_holm", "verdict",
    "test", "n", "n_undefined", "p_cases", "p_delong", "fold_difference", "p_folds",
    "higher_is_better",
]  # fmt: skip


def compare(
    student: tuple[Pool, Measured],
    others: Sequence[tuple[Pool, Measured]],
    bench: Bench,
    confidence: float,
) -> pd.DataFrame:
    """One row per metric and other model.

    Columns: student, other, metric, difference (student less other), low, high, p_value, p_holm
    (within the metric), verdict (of the student: `better`, `worse`, `open` where nothing is shown,
    `untested`), test (`folds and cases`, `over folds`, `external cases`, or `cases` with one split,
    without a p value), n (cases that both predict), n_undefined (resamples without a difference),
    p_cases (paired bootstrap over cases), p_delong (AUC alone), fold_difference and p_folds
    (corrected resampled t-test), higher_is_better.

    Args:
        student: its pooled predictions and measures.
        others: those of each other model.
        bench: cases, labels and resamples.
        confidence: coverage of the intervals, e.g. 0.95.
    """
    rows = [row for other in others for row in differences(student, other, bench, confidence)]
    return adjusted(pd.DataFrame(rows, columns=COLUMNS))


def adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `p_holm`, of which the rows of a metric are a family, and `verdict`."""
    table = table.copy()
    for name in table["metric"].unique():
        family = table["metric"] == name
        table.loc[family, "p_holm"] = holm(table.loc[family, "p_value"].to_numpy(float))
    numbers = table[["low", "high", "p_holm"]].to_numpy(float)
    table["verdict"] = [
        verdict(low, high, p, higher)
        for (low, high, p), higher in zip(
            numbers, table["higher_is_better"].to_numpy(bool), strict=True
        )
    ]
    return table


def verdict(low: float, high: float, p_holm: float, higher: bool) -> Verdict:
    """What may be said of a student whose difference to another model has this interval.

    Args:
        low: lower end of the interval of the difference, student less other.
        high: its upper end.
        p_holm: p value after Holm's correction.
        higher: whether a higher value of the metric is better.
    """
    if not np.isfinite([low, high, p_holm]).all():
        return "untested"
    if p_holm > LEVEL or low <= 0 <= high:
        return "open"
    return "better" if (low > 0) == higher else "worse"


def differences(
    student: tuple[Pool, Measured], other: tuple[Pool, Measured], bench: Bench, confidence: float
) -> list[dict[str, object]]:
    """A row a metric that both models have; columns as of `compare`, not yet adjusted.

    Args:
        student, other: the two models.
        bench: the evaluated cases.
        confidence: coverage of the intervals, e.g. 0.95.
    """
    shared = student[1].there & other[1].there
    mine, theirs = (_on(shared, model, bench, "cases") for model in (student, other))
    names = [name for name in mine if "[" not in name and name in theirs]
    redrawn = None
    if bench.draws_folds:
        redrawn = [_on(shared, model, bench, "folds") for model in (student, other)]
    folds = _by_fold(student, other, bench)
    delong = _delong(student[0], other[0], bench, shared)
    rows: list[dict[str, object]] = []
    for name in names:
        given = mine[name] - theirs[name]
        difference = float(given[0])
        mean, error, p_folds = fold_test(folds[0][name] - folds[1][name], _test_to_train(bench))
        between, p, test = interval(given[1:], confidence), float("nan"), "cases"
        low, high = between.low, between.high
        if bench.fixed:
            p, test, p_folds = p_value(given[1:]), "external cases", float("nan")
        elif redrawn is not None:
            drawn = widened(redrawn[0][name] - redrawn[1][name], len(bench.folds))[1:]
            between, p, test = interval(drawn, confidence), p_value(drawn), "folds and cases"
            low, high = between.low, between.high
        elif np.isfinite(p_folds):
            reach = error * stats.t.ppf((1 + confidence) / 2, _defined(folds, name) - 1)
            low, high, p, test = difference - reach, difference + reach, p_folds, "over folds"
        rows.append(
            {
                "student": student[0].name,
                "other": other[0].name,
                "metric": name,
                "difference": difference,
                "low": low,
                "high": high,
                "p_value": p,
                "p_holm": float("nan"),
                "verdict": "",
                "test": test,
                "n": int(shared.sum()),
                "n_undefined": between.n_undefined,
                "p_cases": p_value(given[1:]),
                "p_delong": delong if name == "auc" else float("nan"),
                "fold_difference": mean,
                "p_folds": p_folds,
                "higher_is_better": higher_is_better(name),
            }
        )
    return rows


def _on(
    shared: np.ndarray, model: tuple[Pool, Measured], bench: Bench, draws: Literal["cases", "folds"]
) -> dict[str, np.ndarray]:
    """A model's metrics on the cases that both predict, with the same resamples for both."""
    pool, measured = model
    if draws == "cases" and (measured.there == shared).all():
        return measured.values
    whole = pooled(pool, bench.labels.cases)
    return bench.score(shared, whole.values, whole.curves, draws)


def _by_fold(
    student: tuple[Pool, Measured], other: tuple[Pool, Measured], bench: Bench
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Both models' metrics on those test cases of each fold that both predict."""
    both = student[1].tested & other[1].tested
    found = []
    for pool, measured in (student, other):
        if (measured.tested == both).all():
            found.append(measured.folds)
            continue
        scores = []
        for fold, rows in zip(bench.folds, both, strict=True):
            part = pooled(pool, bench.labels.cases, fold=fold.index)
            scores.append(bench.score(rows, part.values, part.curves))
        found.append(by_name(scores, measured.values))
    return found[0], found[1]


def _defined(folds: tuple[dict[str, np.ndarray], dict[str, np.ndarray]], name: str) -> int:
    return int(np.isfinite(folds[0][name] - folds[1][name]).sum())


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment; NaN stays NaN and is no member of the family."""
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return adjusted


def fold_test(differences: np.ndarray, test_to_train: float) -> tuple[float, float, float]:
    """The corrected resampled t-test (Nadeau and Bengio 2003) over folds.

    Training parts of folds overlap, so the variance of the mean is taken as (1/k + n_test/n_train)
    times that of the differences.

    Args:
        differences: (k,), one a fold; NaN where a fold has none.
        test_to_train: cases tested per case trained on.

    Returns:
        the mean difference, its standard error, and the two-sided p value (NaN with fewer than two
        folds).
    """
    defined = differences[np.isfinite(differences)]
    if not len(defined):
        return (float("nan"),) * 3
    mean = float(defined.mean())
    if len(defined) < 2:
        return mean, float("nan"), float("nan")
    error = float(np.sqrt(defined.var(ddof=1) * (1 / len(defined) + test_to_train)))
    if error == 0:
        return mean, error, 1.0 if mean == 0 else float("nan")
    return mean, error, float(2 * stats.t.sf(abs(mean) / error, len(defined) - 1))


def _test_to_train(bench: Bench) -> float:
    return float(np.mean([len(fold.test) / len(fold.train) for fold in bench.folds]))


def _delong(student: Pool, other: Pool, bench: Bench, shared: np.ndarray) -> float:
    label = bench.labels.label
    if not isinstance(bench.task, ClassificationTask) or label is None:
        return float("nan")
    first, second = (pooled(pool, bench.labels.cases).values[shared] for pool in (student, other))
    return delong_test(label[shared], first, second)
