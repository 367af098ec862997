"""The covariates of the sheet, checked before any work starts. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cohort.checks import conflicts, report, suggestion
from pipeline.cohort.labels import case_labels
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.covariates import Column, problems_of, read_covariates, told_of
from pipeline.contracts.labels import canonical, columns_of

if TYPE_CHECKING:
    from pipeline.config.cohort import Covariate
    from pipeline.contracts.slide_row import SlideRow


def check_covariates(
    rows: Sequence[SlideRow], wanted: Mapping[str, Covariate], tasks: Mapping[str, Any]
) -> None:
    """Check every covariate over the cohort.

    Args:
        rows: the cohort.
        wanted: column -> how it counts.
        tasks: name -> task config; what a task predicts is no covariate.

    Raises:
        SheetError: a column is missing or constant, is a task's own, has texts among its numbers or
            too many categories, or slides of a case disagree. All findings in one message.
    """
    known = rows[0].labels if rows else {}
    absent = [name for name in wanted if name not in known]
    problems = [
        f"no column `{name}`{suggestion(name, known)}; add it to the sheet or correct "
        f"cohort.covariates"
        for name in absent
    ]
    predicted = {
        column: name
        for name, given in tasks.items()
        for column in columns_of(spelled_out(given, known))
    }
    problems += [
        f"column `{name}`: the task `{predicted[name]}` predicts it; it cannot be a covariate"
        for name in wanted
        if name in predicted
    ]
    there = {name: kind for name, kind in wanted.items() if name not in absent}
    slides = Counter(r.case_id for r in rows)
    of_many = [r for r in rows if slides[r.case_id] > 1]
    for name in there:
        problems += conflicts(of_many, name, {r.row: canonical(r.labels[name]) for r in of_many})
    if not problems:
        at = {c.case_id: ", ".join(map(str, c.rows)) for c in case_labels(rows, list(there))}
        problems = [p for column in _columns(rows, there) for p in problems_of(column, at)]
    report("covariates of the sheet", problems)


def check_read(rows: Sequence[SlideRow], models: Mapping[str, Sequence[str]]) -> None:
    """Check that a cohort on which models are applied has the covariates that these read.

    Args:
        rows: the cohort.
        models: name -> the columns that the model reads.

    Raises:
        SheetError: a column is missing, or slides of a case disagree.
    """
    known = rows[0].labels if rows else {}
    wanted = {name: model for model, columns in models.items() for name in columns}
    problems = [
        f"the model `{model}` reads a column `{name}`, which is missing"
        f"{suggestion(name, known)}; add it to the sheet, or name other models in external.models"
        for name, model in wanted.items()
        if name not in known
    ]
    slides = Counter(r.case_id for r in rows)
    of_many = [r for r in rows if slides[r.case_id] > 1]
    for name in wanted:
        if name in known:
            problems += conflicts(
                of_many, name, {r.row: canonical(r.labels[name]) for r in of_many}
            )
    report("covariates of the sheet", problems)


def told(rows: Sequence[SlideRow], wanted: Mapping[str, Covariate]) -> list[str]:
    """One line per covariate, for a dry-run.

    Args:
        rows: the cohort, checked.
        wanted: column -> how it counts.
    """
    return [told_of(column) for column in _columns(rows, wanted)]


def _columns(rows: Sequence[SlideRow], wanted: Mapping[str, Covariate]) -> list[Column]:
    cases = case_labels(rows, list(wanted))
    table: dict[str, list[object]] = {"case_id": [c.case_id for c in cases]}
    table |= {name: [c.values[name] for c in cases] for name in wanted}
    return read_covariates(table, wanted)
