"""How alike a student's and a teacher's views of the same tiles are."""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 10
BLOCK = 512


def explained_variance(answers: np.ndarray, targets: np.ndarray) -> float:
    """One minus the mean squared error over the variance of the targets; at most 1.

    Args:
        answers: (N, D) of the student.
        targets: (N, D) of the teacher.
    """
    error = float(np.square(answers - targets).mean())
    return 1 - error / max(float(np.square(targets - targets.mean(0)).mean()), 1e-12)


def cka(left: np.ndarray, right: np.ndarray) -> float:
    """Linear centred kernel alignment: 1 where one is the other turned and scaled.

    Source: Kornblith et al. 2019, "Similarity of neural network representations revisited".

    Args:
        left: (N, D).
        right: (N, E), of the same tiles.
    """
    left = left.astype(np.float64) - left.mean(0, dtype=np.float64)
    right = right.astype(np.float64) - right.mean(0, dtype=np.float64)
    norms = np.linalg.norm(left.T @ left) * np.linalg.norm(right.T @ right)
    return float(np.square(np.linalg.norm(left.T @ right)) / max(norms, 1e-12))


def neighbour_overlap(left: np.ndarray, right: np.ndarray, k: int = NEIGHBOURS) -> float:
    """Share of a tile's k nearest tiles, by cosine, that both have: 1 where all are the same.

    Args:
        left: (N, D).
        right: (N, E), of the same tiles.
        k: how many neighbours.
    """
    k = min(k, len(left) - 1)
    if k < 1:
        return float("nan")
    both = [_nearest(view, k) for view in (left, right)]
    shared = [len(np.intersect1d(a, b)) for a, b in zip(*both, strict=True)]
    return float(np.mean(shared)) / k


def _nearest(view: np.ndarray, k: int) -> np.ndarray:
    view = view.astype(np.float32)
    view = view / np.maximum(np.linalg.norm(view, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(view), BLOCK):
        block = view[start : start + BLOCK] @ view.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf
        found.append(np.argpartition(-block, k - 1, axis=1)[:, :k])
    return np.concatenate(found)
