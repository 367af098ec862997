"""Regression metrics for many weightings of the cases at once.

With the definitions of scikit-learn and SciPy, to which the tests hold them. With several targets
a metric is their mean over the targets that vary; where only the prediction does not, a correlation
counts as 0 there, lest a model gain by saying nothing. Each target's own value is given too; of
many targets in a table of their own (`pipeline.evaluation.targets`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.bootstrap import ratio

# Raised when measures of regression tasks change. 1: the first.
VERSION = 1

SHOWN_TARGETS = 50
BLOCK_VALUES = 2**22  # resamples x targets that are measured at once: 32 MiB an array
NEED_VARIANCE = frozenset({"r2", "pearson", "spearman"})  # of the measured values
_CONSTANT = 1e-12


class RegressionScorer:
    """Measured values and weights, prepared for any number of models.

    Args:
        targets: float64 (n, t), measured.
        names: of the targets.
        weights: (b, n), non-negative.
    """

    def __init__(self, targets: np.ndarray, names: list[str], weights: np.ndarray) -> None:
        self.targets, self.names, self.weights = targets, names, weights

    def __call__(self, values: np.ndarray, curves: np.ndarray | None) -> dict[str, np.ndarray]:
        """All metrics of one model.

        Ranks are made again in each resample, so Spearman's ρ is left out where there are more than
        `SHOWN_TARGETS` targets; so are the values of single targets.

        Args:
            values: (n, t), predicted.
            curves: not used.

        Returns:
            name -> float64 (b,), NaN where undefined; with several targets also `name[target]`.
        """
        several = len(self.names) > 1
        few = len(self.names) <= SHOWN_TARGETS
        totals: dict[str, np.ndarray] = {}
        varying = np.zeros(len(self.weights))
        found: dict[str, np.ndarray] = {}
        for block in blocks(len(self.names), len(self.weights)):
            true, predicted = self.targets[:, block], values[:, block]
            each = target_metrics(true, predicted, self.weights)
            if few:
                pairs = zip(true.T, predicted.T, strict=True)
                ranked = [spearman(t, p, self.weights) for t, p in pairs]
                each["spearman"] = np.stack(ranked, axis=1)
            varies = np.isfinite(each["r2"])
            varying += varies.sum(axis=1)
            for name, value in each.items():
                if several and name in NEED_VARIANCE:
                    value = np.where(varies, np.nan_to_num(value), 0)
                totals[name] = totals.get(name, 0) + value.sum(axis=1)
            if several and few:
                for t, target in enumerate(self.names[block]):
                    found |= {f"{name}[{target}]": value[:, t] for name, value in each.items()}
        counted = varying if several else np.ones(len(self.weights))
        means = {
            name: ratio(total, counted) if name in NEED_VARIANCE else total / len(self.names)
            for name, total in totals.items()
        }
        return means | found


def blocks(targets: int, resamples: int) -> Iterator[slice]:
    """Ranges of targets that are measured at once, so that many fit in memory."""
    size = max(1, BLOCK_VALUES // resamples)
    for start in range(0, targets, size):
        yield slice(start, min(start + size, targets))


def target_metrics(
    true: np.ndarray, predicted: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics of each target.

    Args:
        true, predicted: (n, t).
        weights: (b, n).

    Returns:
        name -> float64 (b, t).
    """
    total = weights.sum(axis=1, keepdims=True)
    error = true - predicted
    squared = weights @ error**2 / total
    x, y = _scaled(true), _scaled(predicted)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    variance_x = _positive(weights @ x**2 / total - mean_x**2)
    variance_y = _positive(weights @ y**2 / total - mean_y**2)
    covariance = weights @ (x * y) / total - mean_x * mean_y
    return {
        "r2": 1 - ratio(squared, variance_x * true.var(axis=0)),
        "pearson": np.clip(ratio(covariance, np.sqrt(variance_x * variance_y)), -1, 1),
        "mae": weights @ np.abs(error) / total,
        "rmse": np.sqrt(squared),
    }


def spearman(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank correlation of values (n,) in every resample; float64 (b,).

    Args:
        true: float (n,).
        predicted: float (n,).
        weights: float64 (b, n), how often each case counts in each resample.
    """
    total = weights.sum(axis=1)
    x, y = midranks(true, weights), midranks(predicted, weights)
    mean_x, mean_y = ((weights * v).sum(axis=1) / total for v in (x, y))
    variance_x = _positive((weights * x**2).sum(axis=1) / total - mean_x**2)
    variance_y = _positive((weights * y**2).sum(axis=1) / total - mean_y**2)
    covariance = (weights * x * y).sum(axis=1) / total - mean_x * mean_y
    return np.clip(ratio(covariance, np.sqrt(variance_x * variance_y)), -1, 1)


def midranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Ranks in every resample, ties at their mean; scaled to (0, 1]. float64 (b, n)."""
    levels, level = np.unique(values, return_inverse=True)
    order = np.argsort(level, kind="stable")
    starts = np.searchsorted(level[order], np.arange(len(levels)))
    held = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks = np.cumsum(held, axis=1) - held + (held + 1) / 2
    scaled: np.ndarray = ranks[:, level] / len(values)
    return scaled


def _scaled(values: np.ndarray) -> np.ndarray:
    """Columns centred and scaled, lest rounding pass for variance; zeros where constant."""
    spread = np.ptp(values, axis=0)
    constant = spread <= 1e-9 * np.maximum(np.abs(values).max(axis=0), 1e-300)
    deviation = np.where(constant, 1, values.std(axis=0))
    scaled: np.ndarray = np.where(constant, 0, (values - values.mean(axis=0)) / deviation)
    return scaled


def _positive(variance: np.ndarray) -> np.ndarray:
    """Zero where only rounding is left of a variance."""
    return np.where(variance > _CONSTANT, variance, 0)
