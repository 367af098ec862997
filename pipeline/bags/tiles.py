"""Single tiles as bags of one, so that every model and the whole loop work on tiles too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from pipeline.bags.index import TeacherIndex
from pipeline.bags.store import Store


def tile_store(
    names: Sequence[str],
    features: Mapping[str, Mapping[str, np.ndarray]],
    device: torch.device,
    absent: Mapping[str, np.ndarray] | None = None,
) -> Store:
    """A store in which every tile is a case of its own: teachers are tokens of a tile.

    Args:
        names: an id per tile, (N,); a tile's position is its number everywhere.
        features: teacher -> level -> (N, d), the same tiles in the same order.
        device: where batches go.
        absent: teacher -> bool (N,), tiles that it has no features of: masked tokens, whose rows
            of `features` are not looked at. None: every teacher has every tile.

    Raises:
        ValueError: a level has another number of tiles.
    """
    n = len(names)
    indices, sums, squares, resident = [], [], [], []
    for teacher, levels in features.items():
        for level, x in levels.items():
            if len(x) != n:
                raise ValueError(f"{teacher}/{level}: {len(x)} rows for {n} tiles")
        lacks = absent.get(teacher) if absent else None
        has = np.ones(n, dtype=bool) if lacks is None else ~lacks
        dims = {level: int(x.shape[1]) for level, x in levels.items()}
        indices.append(TeacherIndex(teacher, dims, ((),) * n, has.astype(np.int64)))
        kept = {level: np.where(has[:, None], x, 0) for level, x in levels.items()}
        sums.append({level: x.astype(np.float64) for level, x in kept.items()})
        squares.append({level: x.astype(np.float64) ** 2 for level, x in kept.items()})
        resident.append({level: torch.from_numpy(x[has]) for level, x in kept.items()})
    return Store(tuple(names), tuple(indices), tuple(sums), tuple(squares), tuple(resident), device)
