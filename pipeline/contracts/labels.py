"""What a task asks of each case, read from the case table in one way by every stage.

A label is missing when its cell is empty (or NaN, NA, N/A); a case without one is left out of that
task, with the reason. Anything else that does not fit is an error that names the column and the
cases, because a label that is guessed is a result that is wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.errors import SheetError, nearest

if TYPE_CHECKING:
    import pandas as pd

Task = SurvivalTask | ClassificationTask | RegressionTask
Table = Mapping[str, Sequence[object]]

_MISSING = {"", "na", "n/a", "nan", "<na>"}


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of one task, a row a case, in the order of the case ids.

    Attributes:
        cases: ids of the cases that have a label, sorted.
        excluded: the other cases, each with its reason.
        time: survival: float64 (n,), in the task's unit.
        event: survival: bool (n,), True where the event was seen.
        classes: classification: the class names, in the config's order or sorted.
        label: classification: int64 (n,), index into `classes`.
        targets: regression: float64 (n, targets).
    """

    cases: tuple[str, ...]
    excluded: dict[str, str]
    time: np.ndarray | None = None
    event: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    label: np.ndarray | None = None
    targets: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Labels:
        """The labels of some rows, in that order."""

        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return dataclasses.replace(
            self,
            cases=tuple(self.cases[i] for i in rows),
            time=some(self.time),
            event=some(self.event),
            label=some(self.label),
            targets=some(self.targets),
        )


def read_labels(cases: pd.DataFrame | Table, name: str, task: Task) -> Labels:
    """The labels of a task.

    Args:
        cases: the case table, as a data frame or as columns by name; one row a case, column
            `case_id` and one column a label.
        name: the task's name, for messages.
        task: the task, spelled out.

    Raises:
        SheetError: a column is not there, or a value in it is not what the task needs.
    """
    unordered = np.array([str(case) for case in cases["case_id"]], dtype=object)
    order = np.argsort(unordered, kind="stable")
    ids = unordered[order]
    table = {str(name): [cells[i] for i in order] for name, cells in _cells(cases)}
    twice = sorted(set(ids[1:][ids[1:] == ids[:-1]]))
    if twice:
        raise SheetError(f"case table: {_some(twice)} stand(s) in more than one row")
    if isinstance(task, SurvivalTask):
        return _survival(table, ids, name, task)
    if isinstance(task, ClassificationTask):
        return _classification(table, ids, name, task)
    return _regression(table, ids, name, task)


def _survival(table: Table, ids: np.ndarray, name: str, task: SurvivalTask) -> Labels:
    time = _numbers(table, ids, name, "time", task.time)
    event = _numbers(table, ids, name, "event", task.event)
    _refuse(
        ids[np.isfinite(event) & ~np.isin(event, (0, 1))],
        f"tasks.{name}.event: column `{task.event}` must be 0 (censored) or 1 (event), it is not",
        "code the event as 1; a column where 1 means censored has to be turned around",
    )
    _refuse(
        ids[time < 0],
        f"tasks.{name}.time: column `{task.time}` is negative",
        "mend the times; they count from diagnosis or surgery",
    )
    reasons = {
        f"no value in column `{task.time}`": np.isnan(time),
        f"no value in column `{task.event}`": np.isnan(event),
    }
    kept, excluded = _keep(ids, reasons)
    return Labels(tuple(ids[kept]), excluded, time=time[kept], event=event[kept] == 1)


def _classification(table: Table, ids: np.ndarray, name: str, task: ClassificationTask) -> Labels:
    text = np.array([class_name(v) for v in _column(table, name, "label", task.label)], object)
    missing = np.array([v is None for v in text])
    found = sorted({v for v in text if v is not None})
    classes = tuple(task.classes) if task.classes else tuple(found)
    unknown = [c for c in classes if c not in found]
    if unknown:
        raise SheetError(
            f"tasks.{name}.classes: no case has `{unknown[0]}` in column `{task.label}`"
            f"{nearest(unknown[0], found)}"
        )
    if len(classes) < 2:
        raise SheetError(
            f"tasks.{name}: column `{task.label}` has only the class {list(classes)}; "
            f"a classification needs two"
        )
    reasons = {f"no value in column `{task.label}`": missing}
    for value in found:
        if value not in classes:
            reasons[f"class `{value}` is not in tasks.{name}.classes"] = text == value
    kept, excluded = _keep(ids, reasons)
    index = {c: i for i, c in enumerate(classes)}
    label = np.array([index[v] for v in text[kept]], dtype=np.int64)
    return Labels(tuple(ids[kept]), excluded, classes=classes, label=label)


def _regression(table: Table, ids: np.ndarray, name: str, task: RegressionTask) -> Labels:
    columns = [_numbers(table, ids, name, "targets", c) for c in task.targets]
    values = np.stack(columns, axis=1)
    reasons = {
        f"no value in column `{c}`": np.isnan(values[:, i]) for i, c in enumerate(task.targets)
    }
    kept, excluded = _keep(ids, reasons)
    return Labels(tuple(ids[kept]), excluded, targets=values[kept])


def _cells(cases: pd.DataFrame | Table) -> Iterator[tuple[object, list[object]]]:
    """Columns of a data frame or of a mapping, which need not be imported to be read."""
    for column in cases:
        yield column, list(cases[column])  # type: ignore[index]


def class_name(value: object) -> str | None:
    """A class as text, None where missing. `1.0` reads `1`: a gap makes floats of integers."""
    if value is None or str(value).strip().lower() in _MISSING:
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _column(table: Table, name: str, key: str, column: str) -> list[object]:
    if column not in table:
        known = [c for c in table if c != "case_id"]
        raise SheetError(
            f"tasks.{name}.{key}: the case table has no column `{column}`"
            f"{nearest(column, known)}. A column whose values differ between the slides of a case "
            f"is not a label of the case and is left out of the table"
        )
    return list(table[column])


def _numbers(table: Table, ids: np.ndarray, name: str, key: str, column: str) -> np.ndarray:
    """A column as float64 (n,), NaN where missing."""
    values = np.full(len(ids), np.nan)
    bad = np.zeros(len(ids), dtype=bool)
    for i, cell in enumerate(_column(table, name, key, column)):
        text = str(cell).strip()
        if cell is None or text.lower() in _MISSING:
            continue
        try:
            values[i] = float(text) if not isinstance(cell, bool | np.bool_) else float(cell)
        except ValueError:
            bad[i] = True
    _refuse(
        ids[bad | np.isinf(values)],
        f"tasks.{name}.{key}: column `{column}` is not a number",
        "write numbers, and leave the cell empty where the value is not known",
    )
    return values


def _keep(ids: np.ndarray, reasons: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, str]]:
    excluded: dict[str, str] = {}
    for reason, mask in reasons.items():
        for case in ids[mask]:
            excluded.setdefault(str(case), reason)
    kept = np.array([str(case) not in excluded for case in ids], dtype=bool)
    return kept, excluded


def _refuse(bad: np.ndarray, what: str, remedy: str) -> None:
    if len(bad):
        raise SheetError(f"{what} for {_some(list(bad))}: {remedy}")


def _some(cases: list[str]) -> str:
    shown = ", ".join(map(str, cases[:8]))
    return shown + (f" and {len(cases) - 8} more" if len(cases) > 8 else "")
