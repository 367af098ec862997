"""Section 4 of an external cohort: models that were trained elsewhere, beside their own results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation, read_evaluation
from pipeline.report.figures import task_figures
from pipeline.report.results import ModelInfo, Results, describe, students
from pipeline.report.sections import ablations, comparisons
from pipeline.report.sections.comparisons import named
from pipeline.report.sections.headline import VERDICTS, Headline, cases_of
from pipeline.report.sections.tasks import TaskSection, every_metric
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    count,
    drawing,
    estimate,
    fixed,
    interval,
    p_text,
    scale_of,
    signed,
)


def section(results: Results, task: str, trained: Path) -> TaskSection:
    """Build the part of one task.

    Args:
        results: the opened results of the external cohort.
        task: the task's name.
        trained: results folder of the training cohort.

    Raises:
        ArtifactError: an evaluation is missing or damaged.
    """
    student = results.config.evaluation.student
    opened = read_evaluation(results.root, task, student)
    own = read_table(trained / "evaluation" / task / "metrics.parquet")
    infos = {name: describe(results.config, name) for name in opened.order}
    main = [name for name in opened.order if infos[name].role != "ablation"]
    parts = [name for name in opened.order if infos[name].role == "ablation"]
    others = [name for name in main if name != student]
    kind = results.config.tasks[task].type
    return TaskSection(
        name=task,
        label=task.replace("_", " "),
        about=f"{kind}; external cohort; {cases_of(opened)}",
        validation="",
        problems=tuple(opened.summary.problems),
        headline=_headline(opened, infos, own),
        attribution=None,
        metrics=_models(opened, infos, main, own, kind),
        ablations=ablations.table(results, opened, infos, parts),
        auxiliary=[],
        targets=None,
        forest=comparisons.forest(results, opened, infos, others),
        curves=task_figures.drawings(results, opened, infos, main),
        frontier=None,
        cost=None,
        costs=None,
        training=None,
        inner=None,
        missing=None,
        stacks=None,
        tests=comparisons.table(opened, infos, [*others, *parts]),
        every_metric=every_metric(opened, infos, [*main, *parts]),
        folds=None,
    )


def _row(own: pd.DataFrame, model: str, metric: str) -> Mapping[str, float]:
    rows = own[(own["model"] == model) & (own["metric"] == metric)].to_dict("records")
    return {key: rows[0][key] for key in ("value", "low", "high")} if rows else {}


def _headline(opened: Evaluation, infos: Mapping[str, ModelInfo], own: pd.DataFrame) -> Headline:
    """The student here and where it was trained, and its strongest rival here."""
    label, row = metrics.describe(opened.primary).label, opened.row(opened.student)
    before = _row(own, opened.student, opened.primary)
    sentence = Markup(
        'On this cohort the student <b>{}</b> reaches {} <b class="value-own">{}</b> {} on {}; in '
        "cross-validation where it was trained, {} {}"
    ).format(
        infos[opened.student].label,
        label,
        fixed(row["value"]),
        interval(row["low"], row["high"]),
        cases_of(opened),
        fixed(before.get("value")),
        interval(before.get("low"), before.get("high")),
    )
    short = ""
    for rival in opened.order:
        pair = opened.comparison(rival)
        if pair is None:
            continue
        sentence += Markup("; to its strongest rival here, <b>{}</b>, the difference is {} {}, {} "
                           "(Holm)").format(
            infos[rival].label,
            signed(pair["difference"]),
            interval(pair["low"], pair["high"], signs=True),
            p_text(pair["p_holm"]),
        )  # fmt: skip
        short = VERDICTS[pair["verdict"]]
        break
    return Headline(sentence + Markup("."), short, "")


def _models(
    opened: Evaluation,
    infos: Mapping[str, ModelInfo],
    names: list[str],
    own: pd.DataFrame,
    kind: str,
) -> Table:
    """One row a model: the primary metric here, in cross-validation, and the other metrics here."""
    primary = metrics.describe(opened.primary)
    rows_of = [opened.row(name) for name in names]
    marks = tuple((value, "chance") for value in (primary.chance,) if value is not None)
    scale = scale_of([r[end] for r in rows_of for end in ("value", "low", "high")], marks)
    kept = metrics.SHOWN[kind]
    others = [m for m in kept if m != opened.primary and m in opened.metric_names]
    rows: list[list[Cell]] = []
    for name, row in zip(names, rows_of, strict=True):
        before = _row(own, name, opened.primary)
        also = [opened.row(name, metric) for metric in others]
        rows.append(
            [
                named(infos[name]),
                estimate(row["value"], row["low"], row["high"]),
                drawing(row["value"], row["low"], row["high"], scale, infos[name].colour),
                estimate(before.get("value"), before.get("low"), before.get("high")),
                *(estimate(one.get("value"), one.get("low"), one.get("high")) for one in also),
                count(row["n"]),
            ]
        )
    return Table(
        caption="All models on the external cohort, and where they were trained",
        columns=[
            Column("model"),
            Column(primary.label, True, primary.hint),
            Column(""),
            Column("in cross-validation", True, "on the training cohort's test folds"),
            *(Column(metrics.describe(m).label, True, metrics.describe(m).hint) for m in others),
            Column("cases", True, "cases with a prediction"),
        ],
        rows=rows,
        read="Each case is predicted by the mean of all folds' models. Below each value is its "
        "interval over cases; in the drawing, the dashed line marks chance. Risk groups are cut, "
        "and survival is predicted, by the training cohort alone.",
        source=(f"evaluation/{opened.task}/metrics.csv",),
        emphasised=students(infos, names),
    )
