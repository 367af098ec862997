"""Bags of two teachers that are made of two kinds of tiles, whose share no mean tells."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.aggregators.network import Objective
from pipeline.bags.index import TeacherIndex
from pipeline.bags.store import Store

CASES, TILES, WIDTHS = 80, 12, (6, 9)
DIMS = tuple({"high": width} for width in WIDTHS)
REGRESSION = Objective("regression", lambda out, y: ((out - y) ** 2).mean())


def bags(seed: int = 0) -> tuple[list[list[np.ndarray]], np.ndarray]:
    """For two teachers a bag a case, and the share of tiles of two opposite kinds, (CASES,).

    The two kinds cancel out in the mean, which says nothing of their share.
    """
    rng = np.random.default_rng(seed)
    share = rng.uniform(0, 1, CASES)
    sizes = rng.integers(TILES, 2 * TILES, CASES) // 2 * 2
    kinds = 3 * rng.choice([-1, 1], sum(WIDTHS))
    made = []
    for size, part in zip(sizes, share, strict=True):
        pairs = round(part * size / 2)
        sign = np.r_[np.ones(pairs), -np.ones(pairs), np.zeros(size - 2 * pairs)]
        tiles = sign[:, None] * kinds + rng.normal(size=(size, len(kinds))) * 0.3
        made.append(tiles.astype(np.float32))
    edges = np.cumsum(WIDTHS)[:-1]
    return [[np.split(tiles, edges, axis=1)[t] for tiles in made] for t in range(2)], share


def store_of(features: list[list[np.ndarray]]) -> Store:
    indices, sums, squares, resident = [], [], [], []
    for t, own in enumerate(features):
        sizes = np.array([len(tiles) for tiles in own])
        indices.append(TeacherIndex(f"t{t}", {"high": WIDTHS[t]}, ((),) * len(own), sizes))
        sums.append({"high": np.stack([tiles.sum(0) for tiles in own]).astype(float)})
        squares.append({"high": np.stack([(tiles**2).sum(0) for tiles in own]).astype(float)})
        resident.append({"high": torch.from_numpy(np.concatenate(own))})
    return resident_store(indices, sums, squares, resident)


def resident_store(
    indices: list[TeacherIndex],
    sums: list[dict[str, np.ndarray]],
    squares: list[dict[str, np.ndarray]],
    resident: list[dict[str, torch.Tensor]],
) -> Store:
    """A store of these teachers; its cases are c0, c1, …."""
    names = tuple(f"c{i}" for i in range(len(indices[0].sizes)))
    parts = (tuple(part) for part in (indices, sums, squares, resident))
    return Store(names, *parts, torch.device("cpu"))  # type: ignore[arg-type]
