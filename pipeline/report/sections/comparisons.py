"""The student against every other model: what decides, and what other tests say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import charts
from pipeline.report.figures.charts import Difference, Drawing
from pipeline.report.results import ModelInfo, Results
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    count,
    interval,
    number,
    p_value,
    signed,
    text,
)

# What decides, by the column `test`, in a sentence.
DECIDES = {
    "folds and cases": "a bootstrap that draws folds and then cases of each: models that were "
    "trained again would differ too",
    "over folds": "the corrected resampled t-test over the splits, whose test parts overlap "
    "(Nadeau and Bengio)",
    "external cases": "a paired bootstrap over the cases of this cohort, from which no model has "
    "learned: the models are taken as they are",
    "cases": "no test: one split trains each model once, and what another training would change "
    "cannot be seen",
}
EXTERNAL = "external cases"
RECIPES = (
    " The bootstrap over cases and DeLong's test say whether these very models would differ on "
    "more cases; of two equally good recipes they call one better far more often than in 5 % of "
    "cohorts (docs/statistics.md)."
)
TESTS = {
    "p_value": ("p", "of the test that decides"),
    "p_holm": ("p, Holm", "the former, adjusted for the number of models"),
    "p_folds": ("p, over folds", "corrected resampled t-test (Nadeau and Bengio)"),
    "p_cases": ("p, cases", "paired bootstrap over cases, which takes trained models as given"),
    "p_delong": ("p, DeLong", "of two correlated AUCs, which takes trained models as given"),
}


def table(opened: Evaluation, infos: Mapping[str, ModelInfo], others: Sequence[str]) -> Table:
    """Every test of the student against each model, by the primary metric.

    Args:
        opened: the task's evaluation.
        infos: model → its label and colour.
        others: names of the other models, in the order of the page.
    """
    pairs = [(name, opened.comparison(name)) for name in others]
    found = [(name, pair) for name, pair in pairs if pair is not None]
    kept = [key for key in TESTS if any(pd.notna(pair.get(key)) for _, pair in found)]
    rows = [
        [
            named(infos[name]),
            Cell(
                Markup('{}<span class="ci">{}</span>').format(
                    signed(pair["difference"]), interval(pair["low"], pair["high"], signs=True)
                ),
                number(pair["difference"]).key,
            ),
            text(pair["verdict"]),
            *(Cell(Markup.escape(p_value(pair.get(k))), number(pair.get(k)).key) for k in kept),
            count(pair["n"]),
        ]
        for name, pair in found
    ]
    label = metrics.describe(opened.primary).label
    tests = list(dict.fromkeys(pair["test"] for _, pair in found))
    decides = "; ".join(DECIDES[test] for test in tests)
    return Table(
        caption=f"Every test of the student against each model, {label}",
        columns=[
            Column("other model"),
            Column("difference", True, "student minus other"),
            Column("student", False, "better or worse: Holm's p is at most 0.05 and the interval "
                   "excludes zero; open: not shown"),
            *(Column(TESTS[key][0], True, TESTS[key][1]) for key in kept),
            Column("cases", True),
        ],
        rows=rows,
        read=f"What decides is {decides}." + ("" if tests == [EXTERNAL] else RECIPES),
        source=(f"evaluation/{opened.task}/comparisons.csv",),
    )  # fmt: skip


def named(info: ModelInfo) -> Cell:
    """A model with the dot of its colour, and its name in the config where that is another."""
    html = Markup('<span class="dot" style="background:{}"></span>{}').format(
        info.colour, info.label
    )
    if info.name != info.label:
        html += Markup('<span class="ci">{}</span>').format(info.name)
    return Cell(html, info.label.casefold(), "model")


def forest(
    results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo], others: Sequence[str]
) -> Drawing | None:
    """The differences with their intervals; None without other models.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        others: names of the other models, in the order of the page.
    """
    rows = []
    for name in others:
        pair = opened.comparison(name)
        if pair is not None:
            rows.append(
                Difference(
                    label=infos[name].label,
                    colour=infos[name].colour,
                    value=float(pair["difference"]),
                    low=float(pair["low"]),
                    high=float(pair["high"]),
                    p=float(pair["p_holm"]),
                    n=int(pair["n"]),
                )
            )
    if not rows:
        return None
    metric = metrics.describe(opened.primary)
    sides = ("other is better", "student is better")
    return charts.forest(
        name=f"{opened.task}-forest",
        title=f"{infos[opened.student].label} against every other model, on the cases that both "
        "predict",
        read=f"A square {'right' if metric.higher else 'left'} of zero favours the student; where "
        "the line crosses zero, this cohort shows no difference between the two models.",
        axis=f"difference in {metric.label} (student − other)",
        sides=sides if metric.higher else sides[::-1],
        rows=rows,
        confidence=results.config.evaluation.confidence,
        source=f"evaluation/{opened.task}/comparisons.csv",
    )
