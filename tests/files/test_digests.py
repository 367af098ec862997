"""Digests of plain values."""

from __future__ import annotations

from pipeline.files.digests import digest


def test_the_order_of_keys_does_not_count_and_types_do() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest("a", 1) != digest("a", 2)
    assert digest(1) != digest("1")
