"""How much of a tile a mask covers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.slides.tile_coverage import cover, cover_at


@given(seed=st.integers(0, 1000), downsample=st.floats(1.0, 20.0))
@settings(max_examples=50, deadline=None)
def test_cover_is_the_exact_area(seed, downsample):
    rng = np.random.default_rng(seed)
    mask = (rng.random((23, 31)) > 0.5).astype(np.uint8)
    xs = np.sort(rng.integers(0, int(31 * downsample), 5)).astype(np.int64)
    ys = np.sort(rng.integers(0, int(23 * downsample), 4)).astype(np.int64)
    size = int(rng.integers(1, int(10 * downsample)))
    found = cover(mask, downsample, xs, ys, size)
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            edges_y = np.clip(np.arange(24) * downsample, y, y + size)
            edges_x = np.clip(np.arange(32) * downsample, x, x + size)
            area = np.diff(edges_y) @ mask @ np.diff(edges_x)
            assert found[i, j] == pytest.approx(area / size**2, abs=1e-5)
    coords = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.int32)
    anywhere = cover_at(mask, downsample, coords, size)
    assert np.allclose(anywhere.reshape(found.shape), found, atol=1e-5)
