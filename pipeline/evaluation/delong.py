"""DeLong's test of two correlated AUCs, which takes both trained models as given."""

from __future__ import annotations

import numpy as np
from scipy import stats


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
