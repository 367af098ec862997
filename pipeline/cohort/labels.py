"""The labels of every task, checked before any work starts. Standard library only.

A label that is empty is not a mistake: that case is simply not part of the task, and is counted.
Everything else that would fail hours later, in the folds or in training, is said here.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cohort.checks import MAX_SHOWN, conflicts, report, suggestion
from pipeline.contracts.cohort_facts import TaskCounts
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.labels import Values, canonical, columns_of, read_values
from pipeline.contracts.values import number

if TYPE_CHECKING:
    from pipeline.config.cohort import Accept
    from pipeline.contracts.slide_row import SlideRow

# Fifty years, in each unit that times are given in; a longer follow-up is another unit.
_LONGEST = {"years": 50, "months": 600, "weeks": 2610, "days": 18_270}
# Columns where 1 may well stand for a case whose event was not seen.
_CENSORSHIP = re.compile(r"cens|alive|living|event_?free|survived", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class CaseLabels:
    """One case's values of a task's columns, and the sheet rows they stand in."""

    case_id: str
    values: dict[str, str]
    rows: tuple[int, ...]


def check_labels(
    rows: Sequence[SlideRow],
    tasks: Mapping[str, Any],
    folds: int | None = None,
    accepted: Iterable[Accept] = (),
) -> None:
    """Check every task's labels over the cohort.

    Args:
        rows: the cohort.
        tasks: name -> task config.
        folds: how many folds the cases will be split into; None: not checked against it.
        accepted: what the user has looked at and says is right.

    Raises:
        SheetError: a column is missing, a value is impossible, slides of a case disagree, or there
            are too few cases, events or classes to learn from. All findings in one message.
    """
    problems: list[str] = []
    for name, given in tasks.items():
        task = spelled_out(given, rows[0].labels if rows else ())
        found = _absent(rows, name, columns_of(task)) or _conflicting(rows, task)
        if not found:
            values = _values(rows, task)
            found = values.problems or _too_few(values, task, folds)
            if task.type == "survival":
                found = found + _doubts(values, task, accepted)
        shown = [f"task `{name}`: {problem}" for problem in found]
        if len(shown) > MAX_SHOWN:
            shown[MAX_SHOWN:] = [f"task `{name}`: … and {len(shown) - MAX_SHOWN} more"]
        problems += shown
    report("labels of the sheet", problems)


def _values(rows: Sequence[SlideRow], task: Any) -> Values:
    """What the task's columns say of each case, read as every later stage reads it."""
    cases = case_labels(rows, columns_of(task))
    table: dict[str, list[object]] = {"case_id": [c.case_id for c in cases]}
    table |= {column: [c.values[column] for c in cases] for column in columns_of(task)}
    return read_values(table, task, {c.case_id: ", ".join(map(str, c.rows)) for c in cases})


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


def summary(rows: Sequence[SlideRow], task: Any) -> TaskCounts:
    """Counts of a task for tables: cases with and without label, events or classes."""
    task = spelled_out(task, rows[0].labels if rows else ())
    values = _values(rows, task)
    events = classes = None
    if task.type == "survival":
        events = sum(float(event) == 1 for _, event in values.texts.values())
    if task.type == "classification":
        classes = dict(sorted(Counter(c for (c,) in values.texts.values()).items()))
    return TaskCounts(
        type=task.type,
        columns=columns_of(task),
        cases=len(values.texts),
        cases_without_label=len(values.excluded),
        events=events,
        classes=classes,
    )


def told(rows: Sequence[SlideRow], tasks: Mapping[str, Any]) -> list[str]:
    """One line per task: classes with counts, events, times, ranges of what will be learned."""
    lines = []
    for name, given in tasks.items():
        task = spelled_out(given, rows[0].labels if rows else ())
        values = _values(rows, task)
        said = [f"{len(values.texts)} cases"]
        if task.type == "classification":
            counts = Counter(text for (text,) in values.texts.values())
            said += [f"{text} {counts[text]}" for text in values.classes]
        if task.type == "survival":
            times = [float(time) for time, _ in values.texts.values()]
            events = sum(float(event) == 1 for _, event in values.texts.values())
            said.append(f"{events} events ({100 * events / len(times):.0f} %)")
            said.append(f"times {min(times):g} to {max(times):g} {task.unit}")
        if task.type == "regression":
            columns = list(zip(*values.texts.values(), strict=True))
            for target, texts in list(zip(task.targets, columns, strict=True))[:3]:
                found = [float(text) for text in texts]
                said.append(f"{target} {min(found):g} to {max(found):g}")
            said += [f"and {len(columns) - 3} more targets"] if len(columns) > 3 else []
        reasons = Counter(values.excluded.values())
        said += [f"{n} left out ({reason})" for reason, n in sorted(reasons.items())]
        lines.append(f"task {name}: {', '.join(said)}")
    return lines


# --- checks ---------------------------------------------------------------------------------------


def _absent(rows: Sequence[SlideRow], name: str, columns: Sequence[str]) -> list[str]:
    known = rows[0].labels if rows else {}
    return [
        f"no column `{column}`{suggestion(column, known)}; add it to the sheet or correct "
        f"tasks.{name}"
        for column in columns
        if column not in known
    ]


def _conflicting(rows: Sequence[SlideRow], task: Any) -> list[str]:
    slides = Counter(r.case_id for r in rows)
    of_many = [r for r in rows if slides[r.case_id] > 1]
    read = str if task.type == "classification" else canonical
    return [
        problem
        for column in columns_of(task)
        for problem in conflicts(of_many, column, {r.row: read(r.labels[column]) for r in of_many})
    ]


def _doubts(values: Values, task: Any, accepted: Iterable[Accept]) -> list[str]:
    """What is possible and seldom meant: a column of censoring, times in another unit."""
    if values.problems or not values.texts:
        return []
    found = []
    n = len(values.texts)
    ones = sum(float(event) == 1 for _, event in values.texts.values())
    if "censorship_column" not in accepted and _CENSORSHIP.search(task.event):
        found.append(
            f"column `{task.event}`: does 1 stand for the event? Its name speaks of cases without "
            f"one, and 1 is what {ones} of {n} cases have ({100 * ones / n:.0f} %). If 1 means "
            f"censored, write a column with 1 - value and name that; if 1 is the event, set "
            f"cohort.accept: [censorship_column]"
        )
    longest = max(float(time) for time, _ in values.texts.values())
    limit = _LONGEST.get(task.unit.casefold().removesuffix("s") + "s")
    if "long_times" not in accepted and limit is not None and longest > limit:
        over = sum(float(time) > limit for time, _ in values.texts.values())
        found.append(
            f"column `{task.time}`: the longest time is {longest:g} {task.unit}, more than 50 "
            f"years ({over} of {n} cases have over {limit:g}); are these days? Divide them (days "
            f"/ 30.44 = months), set the task's `unit`, or set cohort.accept: [long_times]"
        )
    return found


def _too_few(values: Values, task: Any, folds: int | None) -> list[str]:
    """What cannot be split or learned although each value is right."""
    k = folds or 1
    cases = list(values.texts.values())
    if len(cases) < max(k, 2):
        return [
            f"{len(cases)} case(s) with a label; {f'{folds} folds need' if folds else 'it needs'} "
            f"at least {max(k, 2)}; label more cases or lower folds.k"
        ]
    if task.type == "survival":
        events = sum(number(event) == 1 for _, event in cases)
        if events == 0:
            return [
                f"column `{task.event}`: no event in {len(cases)} cases, all are censored; is 1 "
                f"the event in your table?"
            ]
        return [] if events >= k else [_rare("events", events, folds)]
    if task.type == "classification":
        counts = Counter(text for (text,) in cases)
        if len(counts) < 2:
            return [
                f"column `{task.label}`: every case has {next(iter(counts))!r}; a classification "
                f"needs two classes"
            ]
        absent = [c for c in values.classes if c not in counts]
        return [
            f"`classes` names {name!r}, which no case has in column `{task.label}`"
            f"{suggestion(name, counts)}"
            for name in absent
        ] + [
            _rare(f"cases of class {value!r}", size, folds)
            for value, size in sorted(counts.items())
            if size < k
        ]
    return [
        f"column `{column}`: every case has the same value; there is nothing to learn"
        for i, column in enumerate(task.targets)
        if len({canonical(texts[i]) for texts in cases}) == 1
    ]


def _rare(what: str, size: int, folds: int | None) -> str:
    return (
        f"{size} {what} for {folds} folds, so that a fold would have none; lower folds.k, or "
        f"merge or empty rare values"
    )
