"""Warnings about slides: named kinds, grouped for people."""

from __future__ import annotations

import json

import pytest

from pipeline.contracts import slide_warnings
from pipeline.contracts.ledger import Record
from pipeline.contracts.slide_warnings import SlideWarning


def test_a_kind_that_nobody_explained_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        SlideWarning("odd", "something")


def test_warnings_survive_a_manifest() -> None:
    found = [SlideWarning("pen", "a fifth"), SlideWarning("scale_assumed", "0.5 µm/px")]
    facts = {slide_warnings.FACT: slide_warnings.as_facts(found)}
    assert slide_warnings.of(json.loads(json.dumps(facts))) == found
    assert slide_warnings.of({}) == []


def test_the_summary_counts_slides_by_kind_and_shows_the_first() -> None:
    both = [SlideWarning("pen", "a fifth"), SlideWarning("scale_assumed", "0.5 µm/px")]
    records = [
        Record(f"s{i}", "tiling", "ok", facts={"warnings": slide_warnings.as_facts(both[i // 5 :])})
        for i in range(6)
    ]
    lines = slide_warnings.summary(slide_warnings.pairs(records))
    assert lines[0] == "warnings about 6 slides:"
    assert lines[1].startswith("  scale_assumed (6 slides). ")
    assert lines[2] == "    - s0: 0.5 µm/px"
    assert lines[5] == "    - and 3 more: ledger.csv"
    assert lines[6].startswith("  pen (5 slides). ")
    assert slide_warnings.summary([]) == []


def test_only_warnings_are_taken_from_a_ledger() -> None:
    rows = [("s1", "pen", "a fifth"), ("s2", "truncated", "ends early")]
    assert slide_warnings.in_ledger(rows) == [("s1", SlideWarning("pen", "a fifth"))]
