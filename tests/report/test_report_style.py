from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

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
