"""The grid: physical size, fixed anchor, exact tissue fractions, even subsampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.tiling import TilingConfig
from pipeline.errors import SlideError
from pipeline.slides import grid


@pytest.mark.parametrize(
    ("mpp", "level", "size0", "read_px"),
    [
        (0.25, 1, 448, 224),  # 0.25, 0.5, 1.0: the 0.5 level is read as it is
        (0.24, 1, 448, 224),  # level 1 is 0.48, within 5 %: tiles of 107.5 µm
        (0.2325, 1, 482, 241),  # level 1 is 0.465: 7 % off, read larger and resized once
        (0.30, 0, 373, 373),  # level 1 is 0.6, too coarse
        (0.52, 0, 224, 224),
    ],
)
def test_level_and_size(mpp, level, size0, read_px):
    found = grid.plan(
        mpp, (1.0, 2.0, 4.0), ((4000, 3000), (2000, 1500), (1000, 750)), TilingConfig()
    )
    assert (found.level, found.size0, found.read_px) == (level, size0, read_px)
    assert found.level_dimensions == (4000 // 2**level, 3000 // 2**level)
    level0_read = found.read_px * 2**level
    assert found.size0 == pytest.approx(level0_read, rel=0.003)  # recorded is what is read
    if found.read_px != 224:
        assert found.size0 * mpp == pytest.approx(112, rel=0.003)


def test_without_tolerance_every_other_scale_is_resampled():
    found = grid.plan(0.52, (1.0,), ((400, 300),), TilingConfig(target_mpp=0.54, mpp_tolerance=0))
    assert (found.size0, found.read_px) == (233, 233)


def test_a_slide_coarser_than_the_target_is_refused():
    with pytest.raises(SlideError, match="target_mpp") as caught:
        grid.plan(1.0, (1.0, 4.0), ((40, 40), (10, 10)), TilingConfig())
    assert caught.value.kind == "too_coarse"


@given(
    mpp=st.floats(0.1, 0.52),
    width=st.integers(1, 20_000),
    overlap=st.integers(0, 223),
)
@settings(max_examples=200, deadline=None)
def test_tiles_stay_inside_and_do_not_drift(mpp, width, overlap):
    cfg = TilingConfig(overlap_px=overlap)
    geometry = grid.plan(mpp, (1.0,), ((width, 100),), cfg)
    starts = grid.positions(width, geometry)
    assert (starts >= 0).all() and (starts + geometry.size0 <= width).all()
    near = abs(mpp / 0.5 - 1) <= cfg.mpp_tolerance
    step_um = (224 - overlap) * (mpp if near else 0.5)
    assert np.allclose(starts * mpp, np.arange(len(starts)) * step_um, atol=0.5 * mpp + 1e-6)
    if len(starts):
        assert starts[0] == 0 and starts[-1] + geometry.size0 + geometry.step0 + 1 > width


def some_coords(count, seed=0):
    rng = np.random.default_rng(seed)
    cells = rng.choice(400 * 300, count, replace=False)
    coords = np.stack([cells % 400, cells // 400], 1).astype(np.int32) * 448
    return coords[np.lexsort((coords[:, 0], coords[:, 1]))]


def test_subsampling_is_even_and_repeatable():
    coords = some_coords(60_000)
    chosen = grid.spread(coords, 600, seed=0, name="slide")
    assert len(np.unique(chosen)) == 600 and (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, grid.spread(coords, 600, seed=0, name="slide"))
    assert not np.array_equal(chosen, grid.spread(coords, 600, seed=1, name="slide"))
    assert not np.array_equal(chosen, grid.spread(coords, 600, seed=0, name="other"))

    def cells(rows):
        x, y = (coords[rows] // (448 * 50)).T
        return np.bincount(y * 8 + x, minlength=48)

    even = cells(chosen) / cells(np.arange(len(coords)))
    random = cells(np.random.default_rng(0).choice(len(coords), 600, replace=False))
    random = random / cells(np.arange(len(coords)))
    assert even.std() < 0.5 * random.std()


def test_few_tiles_are_all_kept():
    coords = some_coords(10)
    assert grid.spread(coords, 10, 0, "a").tolist() == list(range(10))
    assert len(grid.spread(coords, 1, 0, "a")) == 1


def test_the_hilbert_curve_visits_each_cell_once_and_takes_single_steps():
    side = 16
    points = np.array([(x, y) for y in range(side) for x in range(side)], np.int32)
    distance = grid._hilbert(points, order=4)
    assert sorted(distance) == list(range(side * side))
    path = points[np.argsort(distance)]
    assert (np.abs(np.diff(path, axis=0)).sum(axis=1) == 1).all()
