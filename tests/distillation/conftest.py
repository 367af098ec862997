"""A batch of random bags for several teachers, and a store whose labels can be learned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.aggregators.network import Shape
from pipeline.bags.batch import Batch
from pipeline.bags.index import TeacherIndex
from pipeline.bags.store import Store
from tests.distillation.kinds import resident_store

LEVELS = ("low", "mid", "high")
DIMS = ({"low": 6, "mid": 7, "high": 8}, {"high": 5}, {"low": 4, "high": 9})
SHAPE = Shape(("one", "two", "three"), DIMS, 4)


@pytest.fixture
def shape() -> Shape:
    return SHAPE


@pytest.fixture
def batch() -> Batch:
    """Five cases; the second lacks teacher two, the third has only teacher one."""
    generator = torch.Generator().manual_seed(0)
    present = torch.ones(5, 3, dtype=torch.bool)
    present[1, 1] = present[2, 1] = present[2, 2] = False
    masks = []
    for t in range(3):
        mask = torch.rand(5, 6, generator=generator) < 0.3
        mask[:, 0] = False
        mask[~present[:, t]] = True
        masks.append(mask)
    features = tuple(
        {level: torch.randn(5, 6, dim, generator=generator) for level, dim in dims.items()}
        for dims in DIMS
    )
    rows = tuple(torch.arange(6).expand(5, -1) for _ in DIMS)
    return Batch(torch.arange(5), features, tuple(masks), rows, present)


@pytest.fixture
def make_store() -> Callable[..., Store]:
    """A store of one-tile bags from given case features, (cases, d) per teacher and level."""

    def make(features: list[dict[str, np.ndarray]], present: np.ndarray) -> Store:
        cases = len(present)
        indices, sums, squares, resident = [], [], [], []
        for t, levels in enumerate(features):
            sizes = present[:, t].astype(np.int64)
            dims = {level: x.shape[1] for level, x in levels.items()}
            indices.append(TeacherIndex(f"t{t}", dims, ((),) * cases, sizes))
            kept = {k: np.where(sizes[:, None] > 0, x, 0.0) for k, x in levels.items()}
            sums.append(kept)
            squares.append({k: x**2 for k, x in kept.items()})
            resident.append(
                {k: torch.from_numpy(x[sizes > 0].astype(np.float32)) for k, x in levels.items()}
            )
        return resident_store(indices, sums, squares, resident)

    return make
