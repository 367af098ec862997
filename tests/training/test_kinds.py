"""The list of kinds of models."""

from __future__ import annotations

import pytest

from pipeline.config.models import OTHERS, aggregators
from pipeline.training.kinds import kinds, table


def test_each_kind_says_what_it_is_and_what_it_costs() -> None:
    found = {kind.name: kind for kind in kinds(2, 16, 30)}
    singles = {f"single, {name}" for name in aggregators()}
    assert set(found) == {*singles, *OTHERS, "concat", "mean"}
    assert all(kind.what and kind.source for kind in found.values())
    assert {n for n, kind in found.items() if kind.cost} == {"ensemble", "covariates"}
    assert all(kind.learned > 0 for kind in found.values() if not kind.cost)
    linear = found["linear"]
    assert linear.learned == 2 * 16 + 1
    assert linear.gflop == pytest.approx(2 * 2 * 16 / 1e9)
    assert found["shazam_v2"].gflop > found["shazam_v1"].gflop > linear.gflop
    lines = table(list(found.values())).splitlines()
    assert max(map(len, lines)) <= 100
    assert "linear: 33 parameters" in "\n".join(lines)
