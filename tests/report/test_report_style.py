from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import ROOT
from pipeline.report.figures import charts, style
from pipeline.report.figures.charts import Difference
from pipeline.report.results import ModelInfo
from pipeline.report.sections import comparisons


def forest(name: str) -> charts.Drawing:
    return charts.forest(
        name=name,
        title="S<1> against others",
        read="",
        axis="difference to S<1>",
        sides=("other is better", "S<1> is better"),
        rows=[Difference("other", "#000000", 0.03612, -0.02449, 0.08651, 0.0421, 37)],
        confidence=0.9,
        source="evaluation/x/comparisons.csv",
    )


def test_numbers_in_a_figure_keep_their_digits() -> None:
    document = forest("a").document
    assert "+0.036 [−0.024, +0.087]" in document
    assert ">0.042<" in document
    assert ">37<" in document
    assert "difference [90 % interval]" in document


def test_two_figures_share_no_id() -> None:
    first, second = (
        set(re.findall(r'\bid="([^"]+)"', forest(name).document)) for name in ("a", "b")
    )
    assert first
    assert not first & second


def test_references_inside_a_figure_follow_its_ids() -> None:
    document = forest("a").document
    ids = set(re.findall(r'\bid="([^"]+)"', document))
    used = set(re.findall(r"url\(#([^)]+)\)", document)) | set(
        re.findall(r'href="#([^"]+)"', document)
    )
    assert used
    assert used <= ids


def test_a_figure_is_the_same_on_every_run_and_escapes_its_description() -> None:
    assert forest("a").document == forest("a").document
    assert "difference to S&lt;1&gt;: other" in forest("a").document


def test_an_inline_figure_shrinks_with_the_window() -> None:
    inline = style.inline(forest("a").document)
    head = inline[: inline.index(">")]
    assert "width:" in head
    assert 'width="' not in head.replace("stroke-width", "")
    assert 'height="' not in head
    assert "viewBox" in head


def test_where_lower_is_better_the_sides_of_the_forest_change() -> None:
    pair = {"difference": -0.1, "low": -0.2, "high": -0.05, "p_holm": 0.01, "n": 10}
    opened: Any = SimpleNamespace(
        task="t", student="s", primary="brier", comparison=lambda name: pair
    )
    infos = {name: ModelInfo(name, name, "fusion", "#000000") for name in ("s", "other")}
    config = SimpleNamespace(evaluation=SimpleNamespace(confidence=0.95))
    results: Any = SimpleNamespace(config=config)
    drawn = comparisons.forest(results, opened, infos, ["other"])
    assert drawn is not None
    assert "← student is better" in drawn.document
    assert "other is better →" in drawn.document
    assert "A square left of zero" in drawn.read


CSS = (ROOT / "pipeline" / "report" / "style.css").read_text()
TEXT = ("ink", "muted", "faint", "accent", "student", "ok", "bad", "caution")
BACKGROUNDS = ("paper", "wash", "own")
MARKS = ("student", "single", "fusion", "average", "ablation", "reference")


def theme(dark: bool) -> dict[str, str]:
    """The page's colours by name."""
    first, second = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)[:2]
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", first))
    return found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", second)) if dark else found


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours (WCAG 2.2)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_ratio_of_black_and_white() -> None:
    assert contrast("#000000", "#ffffff") == 21


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_of_the_page_can_be_read(dark: bool) -> None:
    """AA of WCAG 2.2: 4.5 for text, 3 for the marks of figures."""
    colours = theme(dark)
    pairs = [(text, ground) for text in TEXT for ground in BACKGROUNDS]
    pairs += [("ink", "caution-wash"), ("bad", "alarm-wash")]
    low = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}
    marks = {name: contrast(colours[f"mark-{name}"], colours["paper"]) for name in MARKS}
    assert {name: ratio for name, ratio in marks.items() if ratio < 3} == {}


def test_the_style_sheet_names_colours_in_one_place_only() -> None:
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-f]{6}\b", rules)) <= {"#ffffff", "#1d2733"}


def test_figures_take_their_colours_from_the_page() -> None:
    light = theme(dark=False)
    for colour, name in style.VARIABLES.items():
        assert light[name] == colour, name
    inline = style.inline(forest("a").document)
    assert f"var(--ink, {style.INK})" in inline
    assert "var(--" not in forest("a").document.replace("var(--sans", ""), "a file stands alone"


def test_what_is_written_in_a_groups_colour_can_be_read() -> None:
    for colour in {colour for group in style.GROUPS.values() for colour in group}:
        assert contrast(style.WRITTEN.get(colour, colour), "#ffffff") >= 4.5, colour
