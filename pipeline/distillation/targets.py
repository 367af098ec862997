"""What a student has to know of its teachers: each case's mean feature, whitened on train.

The published students are asked to agree with vectors that they make themselves, so that agreement
is free and teaches nothing. These targets are fixed before training begins: the principal
components of a teacher's case means, each scaled to unit variance over the training part.
"""

from __future__ import annotations

import dataclasses

import numpy as np

EXPLAINED = 0.9
LARGEST = 32


@dataclasses.dataclass(frozen=True)
class Whitening:
    """x -> (x - mean) @ basis, of unit variance over what it was fitted on.

    Attributes:
        mean: float64 (d,).
        basis: float64 (d, k).
    """

    mean: np.ndarray
    basis: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, d) -> float64 (n, k)."""
        return (x - self.mean) @ self.basis


def fit_whitening(
    x: np.ndarray, explained: float = EXPLAINED, largest: int = LARGEST
) -> Whitening | None:
    """Principal components of x, as many as explain the wished share of its variance.

    Args:
        x: float (n, d), the training cases that have the teacher. Columns are brought to unit
            variance first, so that a large unit is not an important one.
        explained: share of the variance.
        largest: most components; never more than a third of the cases, since the last components
            of few cases are noise.

    Returns:
        the whitening, or None with fewer than four cases or without variance.
    """
    n = len(x)
    if n < 4:
        return None
    mean = x.mean(0)
    deviation = x.std(0)
    scale = np.where(deviation > 1e-9 * (1 + np.abs(mean)), 1 / np.maximum(deviation, 1e-30), 0.0)
    _, values, right = np.linalg.svd((x - mean) * scale, full_matrices=False)
    variance = values**2 / n
    total = variance.sum()
    if total <= 0:
        return None
    enough = int(np.searchsorted(np.cumsum(variance) / total, explained)) + 1
    k = max(1, min(enough, largest, n // 3, int((variance > 1e-9 * total).sum())))
    return Whitening(mean, scale[:, None] * right[:k].T / np.sqrt(variance[:k]))
