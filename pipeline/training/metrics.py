"""The few metrics that training watches on the validation part. The evaluation has its own.

NumPy only: they run once an epoch on small parts, and the statistics libraries cost more to import
than a fold to train.
"""

from __future__ import annotations

import numpy as np


def concordance(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Harrell's C: among comparable pairs, how often the earlier event has the higher risk.

    A pair is comparable when the earlier time is an event, or when times are equal and one of the
    two is an event. Equal risks count half. NaN without a comparable pair.

    Args:
        risk: float (n,), higher = worse.
        time: float (n,).
        event: (n,), 1 = event.
    """
    event = event > 0.5
    first = event[:, None] & (
        (time[:, None] < time[None, :]) | ((time[:, None] == time[None, :]) & ~event[None, :])
    )
    pairs = int(first.sum())
    if not pairs:
        return float("nan")
    higher = (risk[:, None] > risk[None, :]) & first
    equal = (risk[:, None] == risk[None, :]) & first
    return float((higher.sum() + 0.5 * equal.sum()) / pairs)


def macro_auc(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Mean one-against-rest AUC over the classes that are present but not alone."""
    areas = []
    for c in range(probabilities.shape[1]):
        yes, no = probabilities[label == c, c], probabilities[label != c, c]
        if len(yes) and len(no):
            wins = (yes[:, None] > no[None, :]).mean()
            ties = (yes[:, None] == no[None, :]).mean()
            areas.append(wins + 0.5 * ties)
    return float(np.mean(areas)) if areas else float("nan")


def mean_pearson(out: np.ndarray, y: np.ndarray) -> float:
    """Pearson correlation of each target, mean over those that vary; NaN if none does."""
    if len(y) < 2:
        return float("nan")
    a, b = out - out.mean(0), y - y.mean(0)
    spread = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    kept = spread > 1e-12
    return float(((a * b).sum(0)[kept] / spread[kept]).mean()) if kept.any() else float("nan")
