from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.contracts.ledger import Record
from pipeline.report.sections.slides import choose
from tests.contracts.test_slide_facts import tiled_facts

records = st.lists(
    st.tuples(st.sampled_from(["ok", "ok", "ok", "empty", "failed"]), st.floats(0, 0.2)),
    max_size=60,
).map(
    lambda rows: [
        Record(f"S{i:03d}", "tiling", status, facts=tiled_facts(pen_fraction=pen))  # type: ignore[arg-type]
        for i, (status, pen) in enumerate(rows)
    ]
)


@given(records, st.integers(0, 20), st.randoms())
def test_the_choice_is_small_fair_and_does_not_depend_on_order(
    found: list[Record], limit: int, rng: random.Random
) -> None:
    chosen = choose(found, limit)
    ids = [r.slide_id for r in chosen]
    assert len(ids) == len(set(ids)) <= limit
    counts = Counter(r.status == "ok" for r in chosen)
    trouble = sum(r.status != "ok" for r in found)
    assert counts[False] == min(trouble, limit // 3)
    assert counts[True] == min(len(found) - trouble, limit - counts[False])
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert [r.slide_id for r in choose(shuffled, limit)] == ids


def test_failed_slides_come_first_and_pen_before_the_rest() -> None:
    found = [
        Record("a", "tiling", "ok"),
        Record("b", "tiling", "empty"),
        Record("c", "tiling", "ok", facts=tiled_facts(pen_fraction=0.3)),
        Record("d", "tiling", "failed"),
        Record("e", "tiling", "ok"),
    ]
    assert [r.slide_id for r in choose(found, 6)] == ["d", "b", "c", "a", "e"]
