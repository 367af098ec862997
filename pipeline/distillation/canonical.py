"""What tells cases apart: canonical variates of the tiles of all teachers.

A tile's features differ within a case by what it happens to show, and between cases by what the
cases are. The directions in which case means differ most, relative to what chance in the choice of
tiles makes of a mean, are Fisher's discriminant for as many classes as there are cases (Rao, 1948);
remote sensing knows them as minimum noise fraction (Green et al., 1988), speaker recognition as
within-class covariance normalisation (Hatch et al., 2006). They are learned without labels, and few
of them hold what hundreds of principal components spread thinly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from pipeline.distillation.ground import View
from pipeline.distillation.tiles import TileComponents

SIZES = (48, 96, 192)  # components of tiles that a set of variates is made of
INDEPENDENT = 50  # tiles of a case at most: neighbours are alike, however many there are
SHRINK = 0.1  # of the within-case covariance towards a multiple of the identity
HALF = 10.0  # ratio of variances from which on a variate is trusted more than half as much as any


def canonical_views(
    z: Mapping[int, np.ndarray],
    has: Mapping[int, np.ndarray],
    deviations: Mapping[int, np.ndarray],
    tiles: TileComponents,
) -> list[View]:
    """Sets of variates of the training cases, one for each of SIZES.

    A variate is trusted, as the deviation of its weight's prior, by how far its ratio r of variance
    between cases to that of chance lies above what noise reaches: sqrt((r - edge) / (r + HALF)),
    where edge is that of pure noise in n cases (Marchenko and Pastur, 1967).

    Args:
        z: for each teacher float64 (n, d_t), standardised case means, its levels side by side; 0
            where a case has no such teacher.
        has: for each teacher bool (n,).
        deviations: for each teacher float64 (d_t,), by which its means were divided.
        tiles: components of the teachers' tiles.

    Returns:
        none where the teachers do not all share the tiles, or nothing stands out.
    """
    if set(z) != set(tiles.teachers):
        return []
    maps = {t: _from_standardised(tiles, t, deviations[t]) for t in z}
    means = np.sum([part @ maps[t] for t, part in z.items()], axis=0)
    rows = np.logical_and.reduce([has[t] for t in z])
    chance = tiles.within() / min(tiles.tiles, INDEPENDENT)
    views = []
    for size in sorted({min(size, means.shape[1]) for size in SIZES}):
        found = _variates(means[rows][:, :size], chance[:size, :size])
        if found is not None:
            axes, trust = found
            own = {t: part[:, :size] @ axes for t, part in maps.items()}
            views.append(View(means[:, :size] @ axes, own, trust))
    return views


def _from_standardised(
    tiles: TileComponents, teacher: int, deviation: np.ndarray
) -> NDArray[np.float64]:
    """(d, K), from a teacher's standardised means to its part of the components."""
    levels = [part for (t, _), part in tiles.maps.items() if t == teacher]
    return np.where(np.isfinite(deviation), deviation, 0.0)[:, None] * np.concatenate(levels)


def _variates(
    means: np.ndarray, chance: np.ndarray
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Axes (k, v) that bring means (n, k) to variates of variance 1, and how each is trusted."""
    n, k = means.shape
    if n < 2:
        return None
    spread = np.trace(chance) / k
    if spread <= 0:
        return None
    noise = (1 - SHRINK) * chance + SHRINK * spread * np.eye(k)
    ratio, axes = eigh(np.cov(means.T).reshape(k, k), noise)
    ratio, axes = ratio[::-1], axes[:, ::-1]
    edge = (1 + np.sqrt(k / n)) ** 2
    kept = ratio > edge
    if not kept.any():
        return None
    ratio = ratio[kept]
    return axes[:, kept] / np.sqrt(ratio), np.sqrt((ratio - edge) / (ratio + HALF))
