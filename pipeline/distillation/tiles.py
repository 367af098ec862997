"""The components of tiles as all teachers that share them see them, learned without labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store, gather, whole

COMPONENTS = 192
FAINTEST = 1e-6  # of the first component's variance: below is rounding
SAMPLE = 4096  # training tiles, as many from one case as from another
FEWEST = 4  # tiles of a case in the sample, so that it shows how tiles of a case differ
LEAST_TILES = 8  # a case, on average: fewer do not show it
CASES_AT_ONCE = 8

Read = tuple[int, str]  # teacher number and level


@dataclasses.dataclass(frozen=True)
class TileComponents:
    """Leading components of standardised tile features, those of all teachers side by side.

    Every teacher and level counts alike, however wide it is, so that what shows in several teachers
    weighs more than what one of them makes of the stain. A tile x has the components
    sum over reads of x[read] @ maps[read] + offset, each of mean 0 and variance 1 in the sample.

    Attributes:
        teachers: numbers of those that share the tiles.
        maps: for each teacher and level float64 (d, K).
        offset: float64 (K,).
        variances: float64 (K,), that a component had before it was brought to 1, falling.
        seen: float32 (tiles, K), of the sample.
        owner: int64 (tiles,), which case a tile is of.
        tiles: of a training case, on average.
    """

    teachers: tuple[int, ...]
    maps: Mapping[Read, NDArray[np.float64]]
    offset: NDArray[np.float64]
    variances: NDArray[np.float64]
    seen: NDArray[np.float32]
    owner: NDArray[np.int64]
    tiles: float

    @cached_property
    def within(self) -> NDArray[np.float64]:
        """(K, K), the covariance of the tiles of one case, mean over cases."""
        counts = np.bincount(self.owner)
        sums = np.zeros((len(counts), self.seen.shape[1]))
        np.add.at(sums, self.owner, self.seen)
        rest = self.seen - (sums / np.maximum(counts, 1)[:, None])[self.owner]
        return np.asarray(rest.T @ rest, dtype=np.float64) / (len(rest) - (counts > 0).sum())


def tile_groups(
    store: Store, train: np.ndarray, scaler: Scaler, reads: Sequence[Read], seed: int
) -> list[TileComponents]:
    """Components of tiles of the training cases, of each set of teachers with the same tiles.

    Args:
        store: the bags.
        train: int64 (n,), the training cases.
        scaler: fitted to them.
        reads: teachers and levels.
        seed: of the decompositions and of the choice among very many cases.

    Returns:
        the largest set first; without teachers that have no bags of several tiles, or only tiles
        that are all the same.
    """
    named = sorted({t for t, _ in reads})
    found = []
    for group in sharing(store.sizes[train][:, named]):
        chosen = [named[i] for i in group]
        own = [(t, level) for t, level in reads if t in chosen]
        found.append(_components(store, train, scaler, own, seed))
    return [tiles for tiles in found if tiles is not None]


def sharing(sizes: np.ndarray) -> list[list[int]]:
    """Sets of teachers that have the same tiles, as far as their numbers tell; the largest first.

    A teacher that few cases have is set apart, since a set is learned from cases that have all.

    Args:
        sizes: int64 (n, T), tiles per case and teacher.

    Returns:
        teacher numbers, without teachers whose bags are too small.
    """
    groups: list[tuple[list[int], np.ndarray]] = []
    for t, own in enumerate(sizes.T):
        has = own > 0
        if not has.any() or own[has].mean() < LEAST_TILES:
            continue
        for i, (group, all_have) in enumerate(groups):
            both = has & all_have
            many = 2 * both.sum() >= max(has.sum(), all_have.sum())
            if many and (own[both] == sizes[both, group[0]]).all():
                groups[i] = [*group, t], both
                break
        else:
            groups.append(([t], has))
    return sorted((group for group, _ in groups), key=len, reverse=True)


def some_at_a_time(
    store: Store, scaler: Scaler, cases: np.ndarray, rows: np.ndarray, limit: int
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Some of the cases' bags at a time, each thinned to `limit` tiles, where the scaler is.

    Args:
        store: the features of all cases.
        scaler: says on which device it is.
        cases: int, numbers of the cases in the store.
        rows: int, which of `cases` are wanted.
        limit: most tiles of a case.
    """
    for start in range(0, len(rows), CASES_AT_ONCE):
        some = rows[start : start + CASES_AT_ONCE]
        batch = gather(store, whole(store, cases[some].tolist(), limit))
        yield some, batch.to(scaler.limit.device)


def _components(
    store: Store, train: np.ndarray, scaler: Scaler, reads: Sequence[Read], seed: int
) -> TileComponents | None:
    """Of teachers that share their tiles; None where these are all the same."""
    chosen = sorted({t for t, _ in reads})
    train = train[(store.sizes[train][:, chosen] > 0).all(axis=1)]
    if not len(train):
        return None
    tiles = float(store.sizes[train][:, chosen[0]].mean())
    if len(train) > SAMPLE // FEWEST:
        rng = np.random.default_rng(seed)
        train = np.sort(rng.choice(train, SAMPLE // FEWEST, replace=False))
    sample, owner = _sample(store, train, scaler, reads)
    mean = sample.mean(axis=0)
    with threadpool_limits(1):  # sums of several threads depend on which comes first
        rank = min(COMPONENTS, *sample.shape)
        _, lengths, axes = randomized_svd(sample - mean, rank, random_state=seed % 2**32)
        kept = lengths**2 > FAINTEST * max(lengths[0] ** 2, 1e-30)
        if not kept.any():
            return None
        scale = np.sqrt(len(sample)) / lengths[kept].astype(np.float64)
        maps = axes[kept].T * scale
        seen = ((sample - mean) @ maps).astype(np.float32)
    widths = [len(scaler.get_buffer(f"shift_{t}_{level}")) for t, level in reads]
    parts = np.split(maps, np.cumsum(widths)[:-1])
    return TileComponents(
        teachers=tuple(chosen),
        maps={
            read: part / np.sqrt(width)
            for read, part, width in zip(reads, parts, widths, strict=True)
        },
        offset=-mean @ maps,
        variances=lengths[kept].astype(np.float64) ** 2 / len(sample),
        seen=seen,
        owner=owner,
        tiles=tiles,
    )


def _sample(
    store: Store, train: np.ndarray, scaler: Scaler, reads: Sequence[Read]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tiles (tiles, all features read), each teacher and level of like size, and their cases."""
    limit = max(FEWEST, SAMPLE // len(train))
    sampled, owners = [], []
    for rows, batch in some_at_a_time(store, scaler, train, np.arange(len(train)), limit):
        features, real = scaler(batch), ~batch.masks[reads[0][0]].cpu().numpy()
        parts = [features[t][level].cpu().numpy()[real] for t, level in reads]
        sampled.append(np.concatenate([p / np.float32(p.shape[1] ** 0.5) for p in parts], axis=1))
        owners.append(np.repeat(rows, real.sum(axis=1)))
    return np.concatenate(sampled), np.concatenate(owners).astype(np.int64)
