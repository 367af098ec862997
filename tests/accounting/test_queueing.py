"""The list schedule, against schedules worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.accounting.queueing import Chain, makespan


def test_by_hand() -> None:
    chains = [Chain(1.0, (4.0, 4.0)), Chain(1.0, (4.0, 4.0))]
    assert makespan(chains, places=1, gpus=1) == 17.0  # 1 h of tiling, then 16 h on one GPU
    # The first chunk's two jobs from hour 1, the second's from hour 5.
    assert makespan(chains, places=1, gpus=2) == 9.0
    assert makespan(chains, places=2, gpus=4) == 5.0
    assert makespan(chains, places=2, gpus=4, queue=0.5) == 6.0
    assert makespan([], places=1, gpus=1) == 0.0
    assert makespan([Chain(2.0, ())] * 3, places=2, gpus=1) == 4.0


hours = st.floats(0.01, 10)
many = st.lists(st.builds(Chain, hours, st.tuples(hours, hours)), min_size=1, max_size=8)


@given(many, st.integers(1, 4), st.integers(1, 4))
def test_no_schedule_beats_the_work_or_the_longest_chain(
    chains: list[Chain], places: int, gpus: int
) -> None:
    found = makespan(chains, places, gpus)
    bounds = (
        sum(sum(c.then) for c in chains) / gpus,
        sum(c.first for c in chains) / places,
        max(c.first + max(c.then) for c in chains),
    )
    assert found >= max(bounds) - 1e-9
    assert found <= sum(c.first + sum(c.then) for c in chains) + 1e-9
    assert makespan(chains, places, 10**3) == pytest.approx(
        makespan(chains, places, sum(len(c.then) for c in chains))
    )
