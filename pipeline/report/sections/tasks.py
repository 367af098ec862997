"""Section 4, one part per task: the models' numbers and the student against each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.folds_summary import FoldsSummary, PartCounts
from pipeline.report import histories
from pipeline.report.evaluated import Evaluation, read_evaluation
from pipeline.report.figures import style, task_figures
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import ModelInfo, Results, describe, students
from pipeline.report.sections import (
    ablations,
    attribution,
    auxiliary_endpoints,
    comparisons,
    costs,
    encoders,
    missing_teachers,
    nested_cv,
    stacks,
    targets,
)
from pipeline.report.sections.comparisons import named
from pipeline.report.sections.headline import Headline, cases_of, headline
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import (
    DASH,
    Cell,
    Column,
    Scale,
    Table,
    count,
    drawing,
    estimate,
    fixed,
    number,
    plural,
    scale_of,
    text,
)

METRIC_ROWS = 120
MEANS = 3  # targets whose mean stands in the table of folds
VALIDATION = (
    "In the imported folds the test cases are the validation cases, by which the models were "
    "chosen. Every number of this task is a validation result: too good by an unknown amount."
)


@dataclasses.dataclass(frozen=True)
class TaskSection:
    name: str
    label: str
    about: str
    validation: str
    problems: tuple[str, ...]
    headline: Headline
    attribution: Drawing | None
    metrics: Table
    ablations: Table | None
    auxiliary: list[Table]
    targets: targets.TargetsSection | None
    missing: Table | None
    stacks: Table | None
    forest: Drawing | None
    curves: tuple[Drawing, ...]
    cost: Drawing | None
    frontier: Drawing | None
    costs: Table | None
    training: Drawing | None
    inner: nested_cv.InnerSection | None
    tests: Table
    every_metric: Table
    folds: Table | None


def section(results: Results, task: str, folds: FoldsSummary) -> TaskSection:
    """Build the part of one task.

    Args:
        results: the opened results.
        task: the task's name.
        folds: how the task's cases were split.

    Raises:
        ArtifactError: its evaluation is missing or damaged.
    """
    student = results.config.evaluation.student
    opened = read_evaluation(results.root, task, student)
    infos = {name: describe(results.config, name) for name in opened.order}
    main = [name for name in opened.order if infos[name].role != "ablation"]
    parts = [name for name in opened.order if infos[name].role == "ablation"]
    others = [name for name in main if name != student]
    averaged = opened.summary.average_of
    priced = dict(zip(main, costs.costs(results, task, main, averaged), strict=True))
    chance = metrics.describe(opened.primary).chance
    validation = "" if folds.labelled == "test" else VALIDATION
    return TaskSection(
        name=task,
        label=task.replace("_", " "),
        about=_about(results, task, opened, folds),
        validation=validation,
        problems=tuple(opened.summary.problems),
        headline=headline(opened, infos, bool(validation)),
        attribution=attribution.drawing(results, opened, infos),
        metrics=_models(results, opened, infos, main, _caption(opened, main, bool(validation))),
        ablations=ablations.table(results, opened, infos, parts),
        auxiliary=auxiliary_endpoints.tables(results, opened, infos, main),
        targets=targets.section(results, opened, infos, main),
        missing=missing_teachers.table(results, opened, infos, main),
        stacks=stacks.table(results, opened, infos, [*main, *parts]),
        forest=comparisons.forest(results, opened, infos, others),
        curves=task_figures.drawings(results, opened, infos, main),
        cost=costs.drawing(opened, infos, priced, chance),
        frontier=encoders.frontier(opened, infos, priced, _made(results)),
        costs=costs.table(opened, infos, priced),
        training=histories.drawing(results, task, infos, [*main, *parts]),
        inner=nested_cv.section(results, opened, infos, [*main, *parts]),
        tests=comparisons.table(opened, infos, [*others, *parts]),
        every_metric=every_metric(opened, infos, [*main, *parts]),
        folds=_folds(folds),
    )


def _made(results: Results) -> list[str]:
    return [one.teacher for one in results.config.made()]


def _caption(opened: Evaluation, names: list[str], validation: bool) -> str:
    kind = "validation" if validation else "test"
    if len({opened.row(name)["n"] for name in names}) == 1:
        return f"All models on the same {kind} cases"
    return (
        f"All models, each on the {kind} cases that it can predict: do not compare rows with "
        f"different numbers of cases"
    )


def _about(results: Results, task: str, opened: Evaluation, folds: FoldsSummary) -> str:
    spec = results.config.tasks[task]
    parts: list[str] = [spec.type]
    if isinstance(spec, SurvivalTask):
        parts.append(f"loss {spec.loss}, time in {spec.unit}")
    elif isinstance(spec, ClassificationTask):
        parts.append(f"label {spec.label}")
    elif isinstance(spec, RegressionTask):
        parts.append(plural(len(spec.targets), "target"))
    grouped = "" if folds.group_by == "case" else f", no {folds.group_by} in two parts"
    parts.append(f"{folds.k} {folds.source} folds{grouped}")
    parts.append(cases_of(opened))
    return "; ".join(parts)


def _references(opened: Evaluation, metric: str) -> tuple[tuple[float, str], ...]:
    found = []
    chance = metrics.describe(metric).chance
    if chance is not None:
        found.append((chance, "chance"))
    if metric in opened.oracle:
        found.append((opened.oracle[metric], "oracle"))
    return tuple(found)


def _models(
    results: Results,
    opened: Evaluation,
    infos: Mapping[str, ModelInfo],
    names: list[str],
    caption: str,
) -> Table:
    """One row per model: the primary metric with its interval drawn, then the other metrics."""
    references = _references(opened, opened.primary)
    rows_of = [opened.row(name) for name in names]
    scale = scale_of([r[end] for r in rows_of for end in ("value", "low", "high")], references)
    kept = metrics.SHOWN[results.config.tasks[opened.task].type]
    others = [m for m in kept if m != opened.primary and m in opened.metric_names]
    primary = metrics.describe(opened.primary)
    spread = ["fold", "seed"] if any(row["n_seeds"] > 1 for row in rows_of) else ["fold"]
    rows: list[list[Cell]] = []
    for name, row in zip(names, rows_of, strict=True):
        rows.append(
            [
                named(infos[name]),
                estimate(row["value"], row["low"], row["high"]),
                drawing(row["value"], row["low"], row["high"], scale, infos[name].colour),
                *(_other(opened, name, metric) for metric in others),
                *(_over(row, of) for of in spread),
                count(row["n"]),
            ]
        )
    if opened.primary in opened.oracle:
        rows.append(
            [
                text("oracle (hidden state)"),
                number(opened.oracle[opened.primary]),
                drawing(opened.oracle[opened.primary], None, None, scale, style.REFERENCE),
                *(number(opened.oracle.get(metric)) for metric in others),
                *(text("") for _ in range(len(spread) + 1)),
            ]
        )
    floor = ""
    if any(metric in opened.average for metric in others):
        floor = " “Average of training” predicts for every case the average of its training part."
        rows.append(
            [
                text("average of training"),
                number(None),
                Cell(Markup("")),
                *(number(opened.average.get(metric)) for metric in others),
                *(text("") for _ in range(len(spread) + 1)),
            ]
        )
    marks = " and ".join(f"{label} ({fixed(value, 2)})" for value, label in references)
    return Table(
        caption=caption,
        columns=[
            Column("model"),
            Column(primary.label, True, primary.hint),
            Column("", hint=_axis(scale)),
            *(Column(metrics.describe(m).label, True, metrics.describe(m).hint) for m in others),
            *(
                Column(f"over {of}s", True, f"mean ± standard deviation of the {of}s' own values")
                for of in spread
            ),
            Column("cases", True, "cases with a prediction"),
        ],
        rows=rows,
        read="Below each value is its interval over cases; in the drawing, dashed lines mark "
        + (marks or "nothing")
        + ". Overlapping intervals do not mean that two models are equal: the paired differences "
        "below answer that." + floor,
        source=(f"evaluation/{opened.task}/metrics.csv",),
        emphasised=students(infos, names),
    )


def _axis(scale: Scale | None) -> str:
    return f"from {fixed(scale.low, 2)} to {fixed(scale.high, 2)}" if scale else ""


def _other(opened: Evaluation, name: str, metric: str) -> Cell:
    row = opened.row(name, metric)
    return estimate(row.get("value"), row.get("low"), row.get("high"))


def _over(row: Mapping[str, Any], of: str) -> Cell:
    """A metric over folds or seeds, each measured alone."""
    mean, deviation = row[f"{of}_mean"], row[f"{of}_std"]
    shown = fixed(mean)
    if shown != DASH and fixed(deviation) != DASH:
        shown += f" ± {fixed(deviation)}"
    return Cell(Markup("{}").format(shown), number(mean).key)


def every_metric(opened: Evaluation, infos: Mapping[str, ModelInfo], names: list[str]) -> Table:
    """One row per metric, a column a model.

    Args:
        opened: the task's evaluation.
        infos: model → its label and colour.
        names: of the models, in order.
    """
    shown = opened.metric_names[:METRIC_ROWS]
    rows = []
    for metric in shown:
        found = [opened.row(name, metric) for name in names]
        label = metrics.describe(metric).label
        rows.append(
            [
                text(label),
                *(estimate(r.get("value"), r.get("low"), r.get("high")) for r in found),
            ]
        )
    left = len(opened.metric_names) - len(shown)
    return Table(
        caption="Every metric of every model",
        columns=[Column("metric"), *(Column(infos[name].label, True) for name in names)],
        rows=rows,
        more=f"{plural(left, 'more metric')} in metrics.csv." if left > 0 else "",
        source=(f"evaluation/{opened.task}/metrics.csv",),
    )


def _folds(folds: FoldsSummary) -> Table:
    """What each part of each fold holds."""
    rows = []
    for fold in folds.folds:
        cells = [text(f"fold {fold.fold}")]
        for part in fold.parts:
            cells += [count(part.cases), text(_held(part))]
        rows.append(cells)
    return Table(
        caption=f"The folds: {folds.k} {folds.source}, seed {folds.seed}, grouped by "
        f"{folds.group_by}",
        columns=[
            Column("fold"),
            *(
                column
                for part in ("train", "validation", "test")
                for column in (Column(part, True), Column("holding"))
            ),
        ],
        rows=rows,
        read="Validation cases decide when the training stops; test cases are used once, at the "
        "end; no case is in two parts of a fold."
        if folds.labelled == "test"
        else "Validation and test share cases here.",
        source=(f"folds/{folds.task}/folds.json",),
    )


def _held(part: PartCounts) -> str:
    if part.events is not None:
        return plural(part.events, "event")
    if part.classes is not None:
        return ", ".join(f"{n} {name}" for name, n in part.classes.items())
    means = [f"{m:.3g}" for m in part.means or []]
    more = f" and {len(means) - MEANS} more" if len(means) > MEANS else ""
    return "mean " + ", ".join(means[:MEANS]) + more
