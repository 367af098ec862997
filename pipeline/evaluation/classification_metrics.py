"""Classification metrics for many weightings of the cases at once.

With the conventions of scikit-learn, to which the tests hold them: ties share a threshold, macro
means run over the classes, and a class that is neither true nor predicted takes no part in F1.
"""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.bootstrap import ratio

# Raised when measures of classification tasks change. 1: the first.
VERSION = 1

ECE_BINS = 10


class ClassificationScorer:
    """Labels and weights, prepared for any number of models.

    Args:
        label: int64 (n,), index of the class.
        classes: number of classes.
        weights: (b, n), non-negative.
        ordered: whether the classes are an order, so that the quadratic κ has a meaning.
    """

    def __init__(self, label: np.ndarray, classes: int, weights: np.ndarray, ordered: bool) -> None:
        self.label, self.classes, self.weights, self.ordered = label, classes, weights, ordered

    def __call__(self, values: np.ndarray, curves: np.ndarray | None) -> dict[str, np.ndarray]:
        """All metrics of one model.

        Args:
            values: (n, classes), probabilities.
            curves: not used.

        Returns:
            name -> float64 (b,), NaN where undefined.
        """
        ranked = [ranking(self.label == c, values[:, c], self.weights) for c in range(self.classes)]
        predicted = values.argmax(axis=1)
        cell = np.eye(self.classes**2)[self.label * self.classes + predicted]
        counts = (self.weights @ cell).reshape(-1, self.classes, self.classes)
        found = {
            "auc": np.mean([auc for auc, _ in ranked], axis=0),
            "auprc": np.mean([precision for _, precision in ranked], axis=0),
            **confusion_metrics(counts),
        }
        if self.ordered and self.classes > 2:
            found["qwk"] = weighted_kappa(counts, quadratic=True)
        return found | self._calibration(values, predicted)

    def _calibration(self, values: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
        n = np.arange(len(self.label))
        total = self.weights.sum(axis=1)
        squared = ((values - np.eye(self.classes)[self.label]) ** 2).sum(axis=1)
        if self.classes == 2:
            squared = squared / 2
        own = np.clip(values[n, self.label], np.finfo(float).eps, 1)
        confidence = values[n, predicted]
        bins = np.eye(ECE_BINS)[np.clip((confidence * ECE_BINS).astype(int), 0, ECE_BINS - 1)]
        gap = self.weights @ (bins * (confidence - (predicted == self.label))[:, None])
        return {
            "brier": ratio(self.weights @ squared, total),
            "log_loss": ratio(self.weights @ -np.log(own), total),
            "ece": ratio(np.abs(gap).sum(axis=1), total),
        }


def ranking(
    positive: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Area under the ROC curve and average precision of one class against the rest.

    Args:
        positive: bool (n,).
        score: (n,), higher is more positive.
        weights: (b, n).

    Returns:
        AUC and average precision, float64 (b,); NaN where a resample lacks either side.
    """
    order = np.argsort(-score, kind="stable")
    starts = np.unique(-score[order], return_index=True)[1]
    sorted_weights = weights[:, order]
    hits = np.add.reduceat(sorted_weights * positive[order], starts, axis=1)
    others = np.add.reduceat(sorted_weights * ~positive[order], starts, axis=1)
    true, false = np.cumsum(hits, axis=1), np.cumsum(others, axis=1)
    n_true, n_false = true[:, -1], false[:, -1]
    below = n_false[:, None] - false
    auc = ratio((hits * (below + others / 2)).sum(axis=1), n_true * n_false)
    taken = true + false
    precision = np.where(taken > 0, true / np.where(taken > 0, taken, 1), 0)
    average = ratio((hits * precision).sum(axis=1), n_true)
    return auc, np.where(n_false > 0, average, np.nan)


def confusion_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics of confusion matrices (b, true class, predicted class)."""
    right = np.diagonal(counts, axis1=1, axis2=2)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    recall = ratio(right, true)
    f1 = ratio(2 * right, true + predicted)
    return {
        "accuracy": ratio(right.sum(axis=1), true.sum(axis=1)),
        "balanced_accuracy": _mean_of_defined(recall),
        "f1": _mean_of_defined(f1),
        "kappa": weighted_kappa(counts, quadratic=False),
    }


def weighted_kappa(counts: np.ndarray, quadratic: bool) -> np.ndarray:
    """Cohen's κ of confusion matrices (b, c, c): unweighted, or with quadratic weights."""
    n = counts.shape[1]
    steps = np.subtract.outer(np.arange(n), np.arange(n)).astype(float)
    penalty = steps**2 if quadratic else (steps != 0).astype(float)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    expected = true[:, :, None] * predicted[:, None, :]
    total = counts.sum(axis=(1, 2))
    lost = (counts * penalty).sum(axis=(1, 2)) * total
    return 1 - ratio(lost, (expected * penalty).sum(axis=(1, 2)))


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))
