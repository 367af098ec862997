"""What tells cases apart: canonical variates of the tiles of all teachers.

A tile's features differ within a case by what it happens to show, and between cases by what the
cases are. The directions in which case means differ most, relative to what chance in the choice of
tiles makes of a mean, are Fisher's discriminant for as many classes as there are cases (Rao, 1948);
remote sensing knows them as minimum noise fraction (Green et al., 1988), speaker recognition as
within-class covariance normalisation (Hatch et al., 2006). They are learned without labels, and few
of them hold what hundreds of principal components spread thinly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from pipeline.distillation.ground import View
from pipeline.distillation.tiles import TileComponents

SIZES = (24, 48, 96, 192)  # leading components of each set of tiles that variates are made of
INDEPENDENT = 50  # tiles of a case at most: neighbours are alike, however many there are
SHRINK = 0.1  # of the within-case covariance towards a multiple of the identity
HALF = 10.0  # ratio of variances from which on a variate is trusted more than half as much as any


def canonical_views(
    z: Mapping[int, np.ndarray],
    has: Mapping[int, np.ndarray],
    deviations: Mapping[int, np.ndarray],
    groups: Sequence[TileComponents],
) -> list[View]:
    """Sets of variates of the training cases, one for each of SIZES.

    A variate is trusted, as the deviation of its weight's prior, by how far its ratio r of variance
    between cases to that of chance lies above what noise reaches: sqrt((r - edge) / (r + HALF)),
    where edge is that of pure noise in n cases (Marchenko and Pastur, 1967). Teachers of
    different tiles are read together too: what chance makes of their means is then independent.
    Sets of each group of teachers are kept as well, since one of them may be worth nothing.

    Args:
        z: for each teacher float64 (n, d_t), standardised case means, its levels side by side; 0
            where a case has no such teacher.
        has: for each teacher bool (n,).
        deviations: for each teacher float64 (d_t,), by which its means were divided.
        groups: components of the tiles of teachers that share them. Teachers in no group, such as
            slide encoders, take no part.

    Returns:
        none where nothing stands out.
    """
    alone = [[tiles] for tiles in groups] if len(groups) > 1 else []
    return [view for some in [groups, *alone] if some for view in _views(z, has, deviations, some)]


def _views(
    z: Mapping[int, np.ndarray],
    has: Mapping[int, np.ndarray],
    deviations: Mapping[int, np.ndarray],
    groups: Sequence[TileComponents],
) -> Iterator[View]:
    """Sets of variates of some groups of teachers, where anything stands out."""
    rows = np.logical_or.reduce([has[t] for tiles in groups for t in tiles.teachers])
    for size in SIZES:
        maps, noise = _joined(groups, deviations, size)
        means = np.sum([z[t] @ part for t, part in maps.items()], axis=0)
        found = _variates(means[rows], noise)
        if found is not None:
            axes, trust = found
            yield View(means @ axes, {t: part @ axes for t, part in maps.items()}, trust)
        if all(size >= len(tiles.variances) for tiles in groups):
            break


def _joined(
    groups: Sequence[TileComponents], deviations: Mapping[int, np.ndarray], size: int
) -> tuple[dict[int, NDArray[np.float64]], NDArray[np.float64]]:
    """The leading `size` components of each group side by side.

    Returns:
        for each teacher (d_t, k), from its standardised means to its part of them, and (k, k), what
        the choice of tiles makes of a case's components.
    """
    ends = np.cumsum([min(size, len(tiles.variances)) for tiles in groups])
    maps, noise = {}, np.zeros((ends[-1], ends[-1]))
    for tiles, start, end in zip(groups, [0, *ends], ends, strict=False):
        own = slice(start, end)
        chance = tiles.within / min(tiles.tiles, INDEPENDENT)
        noise[own, own] = chance[: end - start, : end - start]
        for t in tiles.teachers:
            part = _from_standardised(tiles, t, deviations[t])
            maps[t] = np.zeros((len(part), ends[-1]))
            maps[t][:, own] = part[:, : end - start]
    return maps, noise


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
