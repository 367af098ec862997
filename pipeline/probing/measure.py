"""How good tile predictions are, and how sure one may be: cases are resampled, not tiles."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interval:
    value: float
    low: float
    high: float


def confusion(y: np.ndarray, said: np.ndarray, groups: np.ndarray, classes: int) -> np.ndarray:
    """Counts int64 (cases, true class, predicted class).

    Args:
        y: int (n,), true classes.
        said: int (n,), predicted classes.
        groups: int (n,), number of each tile's case.
        classes: how many there are.
    """
    found = np.zeros((int(groups.max()) + 1, classes, classes), dtype=np.int64)
    np.add.at(found, (groups, y, said), 1)
    return found


def scores(
    counts: np.ndarray, bootstraps: int, confidence: float, rng: np.random.Generator
) -> dict[str, Interval]:
    """Balanced accuracy and macro F1 with percentile intervals of a bootstrap over cases.

    Args:
        counts: as `confusion` makes them; cases without a tile do not count.
        bootstraps: resamples.
        confidence: of the interval.
        rng: of the resamples.
    """
    counts = counts[counts.sum((1, 2)) > 0]
    n = len(counts)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=bootstraps)
    weights = np.concatenate([np.ones((1, n)), drawn])
    total = np.einsum("bn,nij->bij", weights, counts)
    tail = (1 - confidence) / 2
    found = {}
    for name, values in (("balanced_accuracy", _recall(total)), ("f1", _f1(total))):
        low, high = np.nanquantile(values[1:], [tail, 1 - tail])
        found[name] = Interval(float(values[0]), float(low), float(high))
    return found


def difference(
    first: np.ndarray,
    second: np.ndarray,
    bootstraps: int,
    confidence: float,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Balanced accuracy of one set of answers less that of another, on the same tiles.

    Args:
        first, second: counts as `confusion` makes them, of the same cases.
        bootstraps, confidence, rng: as in `scores`; a resample is of cases, the same for both.

    Returns:
        difference, low, high, and a two-sided bootstrap p_value (Davison and Hinkley 1997).
    """
    there = first.sum((1, 2)) > 0
    n = int(there.sum())
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=bootstraps)
    weights = np.concatenate([np.ones((1, n)), drawn])
    recalls = [_recall(np.einsum("bn,nij->bij", weights, c[there])) for c in (first, second)]
    apart = recalls[0] - recalls[1]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(apart[1:], [tail, 1 - tail])
    rarer = min((apart[1:] <= 0).sum(), (apart[1:] >= 0).sum())
    return {
        "difference": float(apart[0]),
        "low": float(low),
        "high": float(high),
        "p_value": float(min(1.0, 2 * (rarer + 1) / (bootstraps + 1))),
    }


def macro_auc(y: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean one-against-rest AUC over the classes that occur; NaN with fewer than two."""
    from scipy.stats import rankdata

    areas = []
    for c in range(probabilities.shape[1]):
        yes = y == c
        if 0 < yes.sum() < len(y):
            ranks = rankdata(probabilities[:, c])
            n = int(yes.sum())
            wins = ranks[yes].sum() - n * (n + 1) / 2
            areas.append(wins / (n * (len(y) - n)))
    return float(np.mean(areas)) if areas else float("nan")


def _recall(total: np.ndarray) -> np.ndarray:
    """Mean recall over the classes that occur in a resample: (b,)."""
    size = total.sum(2)
    hit = np.diagonal(total, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmean(np.where(size > 0, hit / size, np.nan), axis=1)


def _f1(total: np.ndarray) -> np.ndarray:
    both = total.sum(2) + total.sum(1)
    hit = np.diagonal(total, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmean(np.where(total.sum(2) > 0, 2 * hit / both, np.nan), axis=1)
