from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.tables import cells


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.71249, "0.712"),
        (-0.5, "−0.500"),
        (-0.0001, "0.000"),
        (None, "–"),
        (math.nan, "–"),
        ("x", "–"),
    ],
)
def test_a_number_has_fixed_decimals_and_a_true_minus(value: object, shown: str) -> None:
    assert cells.fixed(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.04, "+0.040"), (-0.04, "−0.040"), (0.0, "0.000")])
def test_a_difference_carries_its_sign(value: float, shown: str) -> None:
    assert cells.signed(value) == shown


@pytest.mark.parametrize(
    ("p", "shown"),
    [(0.0004, "< 0.001"), (0.013, "0.013"), (0.0996, "0.100"), (0.344, "0.34"), (None, "–")],
)
def test_p_values_have_the_decimals_that_they_can_bear(p: float | None, shown: str) -> None:
    assert cells.p_value(p) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (59.2, "59 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations_read_as_spoken(seconds: float, shown: str) -> None:
    assert cells.duration(seconds) == shown


@given(st.floats(0, 1e6))
def test_durations_never_show_sixty(seconds: float) -> None:
    assert "60" not in cells.duration(seconds).replace("h", "").split(" ")[2:3]


def test_an_interval_needs_both_ends() -> None:
    assert cells.interval(0.1, 0.2, 2) == "[0.10, 0.20]"
    assert cells.interval(0.1, math.nan) == ""


def test_counts_and_plurals() -> None:
    assert cells.whole(1234567) == "1\u2009234\u2009567"
    assert cells.plural(1, "slide") == "1 slide"
    assert cells.plural(2, "class") == "2 classes"


def test_cells_escape_what_they_are_given() -> None:
    for cell in (cells.text("<b>&"), cells.code("<b>&")):
        assert "<b>" not in cell.html
        assert "&lt;b&gt;&amp;" in cell.html


def test_the_drawing_puts_a_value_where_the_scale_says() -> None:
    scale = cells.Scale(0.0, 1.0, ((0.5, "chance"),))
    cell = cells.drawing(0.25, 0.0, 2.0, scale, "#000000")
    assert 'cx="32.5"' in cell.html
    assert 'x1="0.0" x2="130.0"' in cell.html  # what lies outside ends at the edge
    assert 'x1="65.0" x2="65.0"' in cell.html  # the reference
    assert cell.key == 0.25


def test_a_scale_holds_all_values_and_references() -> None:
    scale = cells.scale_of([0.6, None, math.nan, 0.8], [(0.5, "chance")])
    assert scale is not None
    assert scale.low < 0.5 < 0.8 < scale.high
    assert cells.scale_of([None]) is None
