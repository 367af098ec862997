"""What each model loses on cases that lack a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation
from pipeline.report.results import ModelInfo, Results, students
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    estimate,
    interval,
    number,
    signed,
    text,
)

COMPLETE = "all teachers"  # of the column `cases`


def table(
    results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo], models: Sequence[str]
) -> Table | None:
    """A row a model; None where every tested case has all teachers.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        models: names, in the order of the page.
    """
    source = f"evaluation/{opened.task}/missing_teachers"
    path = results.root / f"{source}.parquet"
    if not path.is_file():
        return None
    found = read_table(path)
    groups = [g for g in found["cases"].unique() if g != COMPLETE]
    rows = []
    for model in models:
        own = {row["cases"]: row for row in found[found["model"] == model].to_dict("records")}
        cells = [text(infos[model].label), _value(own[COMPLETE])]
        for group in groups:
            row = own[group]
            lost = Markup('{}<span class="ci">{}</span>').format(
                signed(row["lost"]), interval(row["lost_low"], row["lost_high"], signs=True)
            )
            cells += [_value(row), Cell(lost, number(row["lost"]).key)]
        rows.append(cells)
    primary = metrics.describe(opened.primary)
    sizes = found.groupby("cases")["n"].max()
    return Table(
        caption=f"{primary.label} of cases that lack a teacher",
        columns=[
            Column("model"),
            Column(f"{COMPLETE} ({sizes[COMPLETE]})", True, "cases that have all of them"),
            *(
                column
                for group in groups
                for column in (
                    Column(f"{group} ({sizes[group]})", True),
                    Column("lost", True, "by which the value is worse there"),
                )
            ),
        ],
        rows=rows,
        read="Beneath each value is its interval over cases. The two are different patients, so "
        "that a model which never reads a missing teacher changes, too: hold the others against "
        "it. A dash: too few cases, or none that the model can predict.",
        source=(f"{source}.csv",),
        emphasised=students(infos, models),
    )


def _value(row: Mapping[Any, Any]) -> Cell:
    return estimate(row["value"], row["low"], row["high"])
