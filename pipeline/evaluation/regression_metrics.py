"""Regression metrics for many weightings of the cases at once.

With the definitions of scikit-learn and SciPy, to which the tests hold them. With several targets
a metric is their mean, and each target's own value stands beside it.
"""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.bootstrap import ratio

SHOWN_TARGETS = 50
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

        Ranks are made anew in each resample, so Spearman's ρ is left out where there are more than
        `SHOWN_TARGETS` targets; so are the values of single targets.

        Args:
            values: (n, t), predicted.
            curves: not used.

        Returns:
            name -> float64 (b,), NaN where undefined; with several targets also `name[target]`.
        """
        each = target_metrics(self.targets, values, self.weights)
        if len(self.names) <= SHOWN_TARGETS:
            columns = range(len(self.names))
            each["spearman"] = np.stack(
                [spearman(self.targets[:, t], values[:, t], self.weights) for t in columns], axis=1
            )
        found = {name: value.mean(axis=1) for name, value in each.items()}
        if 1 < len(self.names) <= SHOWN_TARGETS:
            for t, target in enumerate(self.names):
                found |= {f"{name}[{target}]": value[:, t] for name, value in each.items()}
        return found


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
    """Rank correlation of values (n,) in every resample; float64 (b,)."""
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
