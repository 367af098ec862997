"""Which tiles of a large bag a step sees."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bags.batch import pad_rows
from pipeline.bags.sampling import draw, spread


@given(size=st.integers(0, 500), limit=st.one_of(st.none(), st.integers(1, 200)))
def test_spread_is_ascending_unique_and_reaches_both_ends(size: int, limit: int | None) -> None:
    rows = spread(size, limit)
    assert len(rows) == (size if limit is None else min(size, limit))
    assert (np.diff(rows) > 0).all()
    if len(rows) > 1:
        assert rows[0] == 0
        assert rows[-1] == size - 1


def test_draw_is_seeded_without_replacement_and_bounded() -> None:
    sizes = np.array([[100, 100], [5, 0], [40, 60]])
    first = draw(sizes, range(3), 32, np.random.default_rng(3))
    again = draw(sizes, range(3), 32, np.random.default_rng(3))
    other = draw(sizes, range(3), 32, np.random.default_rng(4))
    for case in range(3):
        for t in range(2):
            rows = first[case][t]
            assert len(rows) == min(32, sizes[case, t])
            assert len(np.unique(rows)) == len(rows)
            assert np.array_equal(rows, again[case][t])
    assert not np.array_equal(first[0][0], other[0][0])


def test_teachers_with_the_same_tiles_see_the_same_draw() -> None:
    chosen = draw(np.array([[90, 90, 80]]), [0], 10, np.random.default_rng(0))[0]
    assert np.array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_pad_rows_keeps_every_row_and_masks_the_rest(lengths: list[int]) -> None:
    chosen = [np.arange(n) + 10 * i for i, n in enumerate(lengths)]
    rows, mask = pad_rows(chosen)
    assert rows.shape == mask.shape == (len(lengths), max(1, *lengths))
    for i, expected in enumerate(chosen):
        assert np.array_equal(rows[i][~mask[i]], expected)


@pytest.mark.parametrize("limit", [1, 3])
def test_draw_never_exceeds_the_limit(limit: int) -> None:
    chosen = draw(np.array([[7], [2]]), [0, 1], limit, np.random.default_rng(0))
    assert [len(chosen[c][0]) for c in (0, 1)] == [limit, min(limit, 2)]
