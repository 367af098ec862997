"""Which tiles of a large bag a step sees: drawn again in training, evenly spread in evaluation.

The choice depends on the seed and the case alone, not on where the features lie, so that resident
and streamed bags train to the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


def spread(size: int, limit: int | None) -> np.ndarray:
    """Up to `limit` row numbers, evenly over the bag: int64, ascending."""
    if limit is None or size <= limit:
        return np.arange(size, dtype=np.int64)
    return np.linspace(0, size - 1, limit).round().astype(np.int64)


def draw(
    sizes: np.ndarray, cases: Iterable[int], limit: int | None, rng: np.random.Generator
) -> dict[int, list[np.ndarray]]:
    """Random rows for each case and teacher, without replacement and ascending.

    Teachers that have equally many tiles of a case share the draw: with the pipeline's own features
    these are the same tiles, so that a student sees one tile through all its teachers.

    Args:
        sizes: int64 (cases, T), tiles per case and teacher.
        cases: the cases to draw for; the order decides which numbers each gets.
        limit: most tiles per bag; None keeps all.
        rng: the generator of this epoch.

    Returns:
        case -> one int64 array of rows per teacher.
    """
    chosen: dict[int, list[np.ndarray]] = {}
    for case in cases:
        drawn: dict[int, np.ndarray] = {}
        for size in map(int, sizes[case]):
            if size in drawn:
                continue
            if limit is None or size <= limit:
                drawn[size] = np.arange(size, dtype=np.int64)
            else:
                picked = rng.choice(size, limit, replace=False, shuffle=False)
                drawn[size] = np.sort(picked).astype(np.int64)
        chosen[case] = [drawn[int(size)] for size in sizes[case]]
    return chosen
