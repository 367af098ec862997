"""Batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.sampler import batches


@given(
    n=st.integers(1, 90), size=st.integers(1, 20), events=st.integers(1, 90), seed=st.integers(0, 9)
)
def test_every_batch_has_an_event_and_every_case_is_used_once(
    n: int, size: int, events: int, seed: int
) -> None:
    strata = (np.arange(n) < min(events, n)).astype(np.int64)
    cases = np.arange(n) + 100
    made = batches(cases, strata, size, np.random.default_rng(seed), needed=1)
    assert sorted(np.concatenate(made).tolist()) == cases.tolist()
    assert all((strata[batch - 100] == 1).any() for batch in made)
    lengths = [len(batch) for batch in made]
    assert max(lengths) - min(lengths) <= 1


def test_strata_are_spread_evenly() -> None:
    strata = np.repeat([0, 1, 2], [20, 8, 4])
    for batch in batches(np.arange(32), strata, 8, np.random.default_rng(0)):
        assert np.bincount(strata[batch]).tolist() == [5, 2, 1]


def test_the_order_is_seeded_and_changes_between_epochs() -> None:
    strata, rng = np.zeros(40, np.int64), np.random.default_rng(5)
    first, second = batches(np.arange(40), strata, 8, rng), batches(np.arange(40), strata, 8, rng)
    again = batches(np.arange(40), strata, 8, np.random.default_rng(5))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_event_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="needed stratum"):
        batches(np.arange(4), np.zeros(4, np.int64), 2, np.random.default_rng(0), needed=1)
