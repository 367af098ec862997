"""Slides whose scale stands apart from the cohort's."""

from __future__ import annotations

from pipeline.contracts.ledger import Record
from pipeline.mapping.scales import unusual_scales
from tests.contracts.test_slide_facts import tiled_facts


def record(
    name: str, mpp: float | None, form: str = "aperio", power: float | None = None
) -> Record:
    facts = tiled_facts(mpp=mpp, format=form, magnification=power)
    return Record(name, "tiling", "ok" if mpp else "failed", facts=facts if mpp else {})


def unusual(*records: Record) -> dict[str, str]:
    found = unusual_scales({r.slide_id: r for r in records})
    assert {w.kind for w in found.values()} <= {"scale_unusual"}
    return {slide: warning.text for slide, warning in found.items()}


def test_twice_and_half_of_the_median_are_named() -> None:
    usual = [record(f"s{i}", 0.25) for i in range(5)]
    found = unusual(*usual, record("a", 0.5, power=20), record("b", 0.125), record("c", 0.3))
    assert set(found) == {"a", "b"}
    assert found["a"] == (
        "0.5 µm/px, but the median of 8 slides of format aperio is 0.25; the file states an "
        "objective of 20x"
    )


def test_each_format_has_its_own_median() -> None:
    fine = [record(f"s{i}", 0.25) for i in range(9)]
    coarse = [record(f"m{i}", 0.5, "mirax") for i in range(3)]
    assert unusual(*fine, *coarse) == {}


def test_a_rare_format_is_compared_with_all_slides() -> None:
    fine = [record(f"s{i}", 0.25) for i in range(9)]
    assert set(unusual(*fine, record("x", 0.635, "ome"), record("y", None))) == {"x"}


def test_two_slides_make_no_median() -> None:
    assert unusual(record("a", 0.25), record("b", 0.5)) == {}
