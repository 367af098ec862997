"""The points of a task's figures: everything that a drawing needs and nothing that it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from pipeline.contracts.labels import Labels
from pipeline.evaluation.pooling import Pooled
from pipeline.evaluation.regression_metrics import target_metrics

_BINS = 10
_POINTS = 201
_THRESHOLDS = np.round(np.arange(0.01, 1.0, 0.01), 2)


def classification_curves(
    labels: Labels, found: Pooled, confidence: float
) -> dict[str, dict[str, Any]]:
    """ROC, precision–recall, calibration and decision curves of each class against the rest.

    Args:
        labels: of the cases.
        found: a model's predictions of them.
        confidence: of the intervals.

    Returns:
        `roc`: class -> fpr, tpr, auc · `precision_recall`: class -> recall, precision, share ·
        `calibration`: class -> predicted, observed, low, high, n · `decision`: class -> threshold,
        net_benefit, treat_all · `confusion`: classes, counts (true × predicted). A class that is
        absent, or alone, among the predicted cases has no curves.
    """
    assert labels.label is not None
    there = found.there
    label, values = labels.label[there], found.values[there]
    curves: dict[str, dict[str, Any]] = {
        kind: {} for kind in ("roc", "precision_recall", "calibration", "decision")
    }
    for c, name in enumerate(labels.classes):
        positive, score = label == c, values[:, c]
        if not positive.any() or positive.all():
            continue
        fpr, tpr, _ = roc_curve(positive, score)
        kept = _thinned(len(fpr))
        auc = float(roc_auc_score(positive, score))
        curves["roc"][name] = {"fpr": fpr[kept].tolist(), "tpr": tpr[kept].tolist(), "auc": auc}
        precision, recall, _ = precision_recall_curve(positive, score)
        kept = _thinned(len(recall))
        curves["precision_recall"][name] = {
            "recall": recall[kept].tolist(),
            "precision": precision[kept].tolist(),
            "share": float(positive.mean()),
        }
        curves["calibration"][name] = calibration(positive, score, confidence)
        curves["decision"][name] = decision(positive, score)
    n = len(labels.classes)
    counts = np.bincount(label * n + values.argmax(axis=1), minlength=n * n).reshape(n, n)
    curves["confusion"] = {"classes": list(labels.classes), "counts": counts.tolist()}
    return curves


def calibration(
    positive: np.ndarray, score: np.ndarray, confidence: float
) -> dict[str, list[float]]:
    """Observed share against mean prediction in groups of equal size, with Wilson intervals.

    Args:
        positive: bool (n,).
        score: (n,), probabilities.
        confidence: of the intervals.
    """
    found: dict[str, list[float]] = {k: [] for k in ("predicted", "observed", "low", "high", "n")}
    order = np.argsort(score, kind="stable")
    for rows in np.array_split(order, min(_BINS, max(1, len(order) // 8))):
        if len(rows):
            hits, n = int(positive[rows].sum()), len(rows)
            band = binomtest(hits, n).proportion_ci(confidence, method="wilson")
            group = (float(score[rows].mean()), hits / n, float(band.low), float(band.high), n)
            for key, value in zip(found, group, strict=True):
                found[key].append(value)
    return found


def decision(positive: np.ndarray, score: np.ndarray) -> dict[str, list[float]]:
    """Net benefit of acting above a threshold (Vickers and Elkin 2006), and of acting on all."""
    odds = _THRESHOLDS / (1 - _THRESHOLDS)
    acted = score[:, None] >= _THRESHOLDS[None, :]
    share = float(positive.mean())
    benefit = (acted & positive[:, None]).mean(axis=0) - odds * (acted & ~positive[:, None]).mean(
        axis=0
    )
    return {
        "threshold": _THRESHOLDS.tolist(),
        "net_benefit": benefit.tolist(),
        "treat_all": (share - odds * (1 - share)).tolist(),
    }


def scatter(labels: Labels, found: Pooled, targets: list[str], drawn: list[str]) -> dict[str, Any]:
    """Measured and predicted values of some targets: target -> true, predicted, r2, pearson.

    Args:
        labels: of the evaluated cases.
        found: a model's pooled predictions.
        targets: names of all targets, in the order of the columns.
        drawn: names of those that are wanted.
    """
    assert labels.targets is not None
    there = found.there
    points = {}
    for name in drawn:
        t = targets.index(name)
        true, predicted = labels.targets[there, t], found.values[there, t]
        each = target_metrics(true[:, None], predicted[:, None], np.ones((1, len(true))))
        points[name] = {
            "true": true.tolist(),
            "predicted": predicted.tolist(),
            **{metric: float(each[metric][0, 0]) for metric in ("r2", "pearson")},
        }
    return points


def _thinned(n: int) -> np.ndarray:
    """At most `_POINTS` of n points, the ends among them."""
    return np.unique(np.linspace(0, n - 1, min(n, _POINTS)).round().astype(int))
