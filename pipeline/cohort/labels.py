"""The labels of every task, checked before any work starts. Standard library only.

A label that is empty is not a mistake: that case is simply not part of the task, and is counted.
Everything else that would fail hours later, in the folds or in training, is said here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cohort.checks import MAX_SHOWN, conflicts, report, suggestion
from pipeline.cohort.values import number
from pipeline.contracts.columns import spelled_out

if TYPE_CHECKING:
    from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
    from pipeline.contracts.slide_row import SlideRow


@dataclasses.dataclass(frozen=True)
class CaseLabels:
    """One case's values of a task's columns, and the sheet rows they stand in."""

    case_id: str
    values: dict[str, str]
    rows: tuple[int, ...]


def columns_of(task: Any) -> list[str]:
    """The sheet columns that a task reads."""
    if task.type == "survival":
        return [task.time, task.event]
    return [task.label] if task.type == "classification" else list(task.targets)


def check_labels(
    rows: Sequence[SlideRow], tasks: Mapping[str, Any], folds: int | None = None
) -> None:
    """Check every task's labels over the cohort.

    Args:
        rows: the cohort.
        tasks: name -> task config.
        folds: how many folds the cases will be split into; None: not checked against it.

    Raises:
        SheetError: a column is missing, a value is impossible, slides of a case disagree, or there
            are too few cases, events or classes to learn from. All findings in one message.
    """
    problems: list[str] = []
    for name, given in tasks.items():
        task = spelled_out(given, rows[0].labels if rows else ())
        columns = columns_of(task)
        found = _absent(rows, name, columns) or _conflicting(rows, columns)
        if not found:
            cases = [c for c in case_labels(rows, columns) if any(c.values.values())]
            found = _half_empty(cases) + _CHECKS[task.type](cases, task)
            found = found or _too_few(labelled(cases), task, folds)
        shown = [f"task `{name}`: {problem}" for problem in found]
        if len(shown) > MAX_SHOWN:
            shown[MAX_SHOWN:] = [f"task `{name}`: … and {len(shown) - MAX_SHOWN} more"]
        problems += shown
    report("labels of the sheet", problems)


def case_labels(rows: Sequence[SlideRow], columns: Sequence[str]) -> list[CaseLabels]:
    """The cases in order of appearance; of each column the value that one of its slides has."""
    cases: dict[str, list[SlideRow]] = {}
    for row in rows:
        cases.setdefault(row.case_id, []).append(row)
    return [
        CaseLabels(
            case_id=case,
            values={c: next((s.labels[c] for s in slides if s.labels[c]), "") for c in columns},
            rows=tuple(s.row for s in slides),
        )
        for case, slides in cases.items()
    ]


def labelled(cases: Sequence[CaseLabels]) -> list[CaseLabels]:
    """The cases that have all of a task's values."""
    return [c for c in cases if all(c.values.values())]


def summary(rows: Sequence[SlideRow], task: Any) -> dict[str, Any]:
    """Counts of a task for tables: cases with and without label, events or classes."""
    task = spelled_out(task, rows[0].labels if rows else ())
    cases = case_labels(rows, columns_of(task))
    have = labelled(cases)
    facts: dict[str, Any] = {
        "type": task.type,
        "columns": columns_of(task),
        "cases": len(have),
        "cases_without_label": len(cases) - len(have),
    }
    if task.type == "survival":
        facts["events"] = sum(float(c.values[task.event]) == 1 for c in have)
    if task.type == "classification":
        facts["classes"] = dict(sorted(Counter(c.values[task.label] for c in have).items()))
    return facts


# --- checks ---------------------------------------------------------------------------------------


def _absent(rows: Sequence[SlideRow], name: str, columns: Sequence[str]) -> list[str]:
    known = rows[0].labels if rows else {}
    return [
        f"no column `{column}`{suggestion(column, known)}; add it to the sheet or correct "
        f"tasks.{name}"
        for column in columns
        if column not in known
    ]


def _conflicting(rows: Sequence[SlideRow], columns: Sequence[str]) -> list[str]:
    slides = Counter(r.case_id for r in rows)
    of_many = [r for r in rows if slides[r.case_id] > 1]
    return [
        problem
        for column in columns
        for problem in conflicts(
            of_many, column, {r.row: _canonical(r.labels[column]) for r in of_many}
        )
    ]


def _canonical(text: str) -> str:
    """Numbers compare as numbers: 12 and 12.0 are no conflict."""
    value = number(text)
    return text if value is None else repr(value).removesuffix(".0")


def _at(case: CaseLabels, column: str) -> str:
    return f"case `{case.case_id}` (row {', '.join(map(str, case.rows))}), column `{column}`"


def _half_empty(cases: Sequence[CaseLabels]) -> list[str]:
    return [
        f"{_at(case, column)}: empty, though the case has the task's other values; fill it, or "
        f"empty them all to leave the case out"
        for case in cases
        for column, value in case.values.items()
        if not value
    ]


def _survival(cases: Sequence[CaseLabels], task: SurvivalTask) -> list[str]:
    problems = []
    for case in cases:
        time, event = case.values[task.time], case.values[task.event]
        months = number(time)
        if time and (months is None or months <= 0):
            problems.append(
                f"{_at(case, task.time)}: {time!r} is not a time above 0 in {task.unit}; correct "
                f"it, or empty the case's label to leave it out"
            )
        if event and number(event) not in (0.0, 1.0):
            problems.append(
                f"{_at(case, task.event)}: {event!r} is neither 1 (event) nor 0 (censored); recode "
                f"the column"
            )
    return problems


def _classification(cases: Sequence[CaseLabels], task: ClassificationTask) -> list[str]:
    if task.classes is None:
        return []
    return [
        f"{_at(case, task.label)}: {value!r} is not one of `classes` "
        f"({', '.join(task.classes)}){suggestion(value, task.classes)}"
        for case in cases
        if (value := case.values[task.label]) not in ("", *task.classes)
    ]


def _regression(cases: Sequence[CaseLabels], task: RegressionTask) -> list[str]:
    return [
        f"{_at(case, column)}: {value!r} is not a number; correct it or leave it empty"
        for case in cases
        for column, value in case.values.items()
        if value and number(value) is None
    ]


def _too_few(cases: Sequence[CaseLabels], task: Any, folds: int | None) -> list[str]:
    """What cannot be split or learned although each value is right."""
    k = folds or 1
    if len(cases) < max(k, 2):
        return [
            f"{len(cases)} case(s) with a label; {f'{folds} folds need' if folds else 'it needs'} "
            f"at least {max(k, 2)}; label more cases or lower folds.k"
        ]
    if task.type == "survival":
        events = sum(number(c.values[task.event]) == 1 for c in cases)
        if events == 0:
            return [
                f"column `{task.event}`: no event in {len(cases)} cases, all are censored; is 1 "
                f"the event in your table?"
            ]
        return [] if events >= k else [_rare("events", events, folds)]
    if task.type == "classification":
        counts = Counter(c.values[task.label] for c in cases)
        if len(counts) < 2:
            return [
                f"column `{task.label}`: every case has {next(iter(counts))!r}; a classification "
                f"needs two classes"
            ]
        return [
            _rare(f"cases of class {value!r}", size, folds)
            for value, size in sorted(counts.items())
            if size < k
        ]
    return [
        f"column `{column}`: every case has the same value; there is nothing to learn"
        for column in task.targets
        if all(_canonical(c.values[column]) == _canonical(cases[0].values[column]) for c in cases)
    ]


def _rare(what: str, size: int, folds: int | None) -> str:
    return (
        f"{size} {what} for {folds} folds, so that a fold would have none; lower folds.k, or "
        f"merge or empty rare values"
    )


_CHECKS: dict[str, Callable[[Sequence[CaseLabels], Any], list[str]]] = {
    "survival": _survival,
    "classification": _classification,
    "regression": _regression,
}
