"""Case bootstrap as weights: resample b holds case i `weights[b, i]` times.

A metric that is written for weights is computed for all resamples in a few matrix products, which
is what makes intervals for every metric of every model cheap. Row 0 is the cohort itself, so that
the estimate and its interval come from one call and one definition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

LEAST_DEFINED = 0.5


@dataclasses.dataclass(frozen=True)
class Interval:
    """A percentile interval over resamples.

    Attributes:
        low, high: NaN where the metric is undefined in most resamples.
        n_undefined: resamples in which the metric is undefined (one class, no comparable pair,
            constant predictions); they take no part in the interval.
    """

    low: float
    high: float
    n_undefined: int


def resample_weights(n: int, resamples: int, seed: int) -> np.ndarray:
    """The cohort and its resamples.

    Args:
        n: cases.
        resamples: how many to draw.
        seed: the draw's seed.

    Returns:
        float64 (resamples + 1, n): row 0 all ones, each other row n draws with replacement.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.vstack([np.ones((1, n)), drawn])


def resample_folds(folds: Sequence[np.ndarray], n: int, resamples: int, seed: int) -> np.ndarray:
    """Resamples of folds, and of cases within each fold that is drawn.

    As many folds as there are, with replacement, and of each drawn one as many of its cases as it
    has, with replacement. Cases of a fold share their trained model, so that a resample of cases
    alone does not show how much the difference of two models moves when both are trained again.

    Args:
        folds: int64, the cases that each fold tests; a partition of the n cases.
        n: cases.
        resamples: how many to draw.
        seed: the draw's seed.

    Returns:
        float64 (resamples + 1, n): row 0 all ones.
    """
    rng = np.random.default_rng(seed)
    k = len(folds)
    times = rng.multinomial(k, np.full(k, 1 / k), size=resamples)
    weights = np.zeros((resamples + 1, n))
    weights[0] = 1
    for fold, cases in enumerate(folds):
        if len(cases):
            even = np.full(len(cases), 1 / len(cases))
            weights[1:, cases] = rng.multinomial(times[:, fold] * len(cases), even)
    return weights


def widened(values: np.ndarray, folds: int) -> np.ndarray:
    """Values over resampled folds, moved away from the estimate by sqrt(k / (k - 1)).

    k folds drawn with replacement vary as their variance divided by k says, not by k - 1: too
    little, where there are few (Davison and Hinkley 1997, section 2.3).

    Args:
        values: (resamples + 1,), the estimate first.
        folds: how many there are, two at least.
    """
    moved: np.ndarray = values[0] + np.sqrt(folds / (folds - 1)) * (values - values[0])
    return moved


def interval(values: np.ndarray, confidence: float) -> Interval:
    """The percentile interval of a metric's values over resamples, NaN where undefined."""
    defined = values[np.isfinite(values)]
    n_undefined = len(values) - len(defined)
    if len(defined) < max(2, LEAST_DEFINED * len(values)):
        return Interval(float("nan"), float("nan"), n_undefined)
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high), n_undefined)


def p_value(differences: np.ndarray) -> float:
    """Two-sided p value that a difference is zero, from its values over resamples.

    Twice the share of resamples on the rarer side of zero, each counted plus one (Davison and
    Hinkley 1997), so that it is never zero. NaN where most resamples are undefined.
    """
    defined = differences[np.isfinite(differences)]
    if len(defined) < max(2, LEAST_DEFINED * len(differences)):
        return float("nan")
    rarer = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (rarer + 1) / (len(defined) + 1)))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Element by element, NaN where the denominator is not above zero."""
    above = denominator > 0
    return np.where(above, numerator / np.where(above, denominator, 1), np.nan)
