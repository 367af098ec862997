"""What a task asks of each case, read in one way when the sheet is parsed and by every stage.

`read_values` has the rules; it needs the standard library alone, since the workflow is parsed at
each call. `read_labels` gives what it read as arrays. A case without a value is left out of that
task, with the reason. Anything else that does not fit is an error that names the column and the
cases, because a label that is guessed is a result that is wrong.
"""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.label_cells import Cell, message, not_numbers, where
from pipeline.contracts.values import EMPTY, filled, number
from pipeline.errors import SheetError, nearest

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Task = SurvivalTask | ClassificationTask | RegressionTask
Table = Mapping[str, Sequence[object]]


@dataclasses.dataclass(frozen=True)
class Labels:
    """The labels of one task, one row per case, in the order of the case ids.

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


@dataclasses.dataclass(frozen=True)
class Values:
    """What a task's columns say, before it is made an array of.

    Attributes:
        texts: case id -> the text of each column, of the cases that have them all; sorted by id.
        excluded: the other cases, each with its reason.
        classes: classification: the class names, in the config's order or sorted.
        problems: what cannot be used, one message a cause; nothing else counts where there is one.
    """

    texts: dict[str, tuple[str, ...]]
    excluded: dict[str, str]
    classes: tuple[str, ...]
    problems: list[str]


def columns_of(task: Any) -> list[str]:
    """The columns that a task reads, spelled out."""
    if task.type == "survival":
        return [task.time, task.event]
    return [task.label] if task.type == "classification" else list(task.targets)


def read_values(table: Table, task: Task, rows: Mapping[str, str] | None = None) -> Values:
    """What a task's columns say of each case, and what is wrong with it.

    Args:
        table: columns by name; one row a case, column `case_id` and those of the task.
        task: the task, spelled out.
        rows: case id -> its rows in the sheet, for messages.
    """
    rows = rows or {}
    ids = [str(case) for case in table["case_id"]]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    text = class_name if task.type == "classification" else number_text
    cells = {
        column: [(ids[i], text(table[column][i]) or "") for i in order]
        for column in columns_of(task)
    }
    classes: tuple[str, ...] = ()
    if task.type == "survival":
        problems = _survival(cells, task, rows)
    elif task.type == "classification":
        found = sorted({text for _, text in cells[task.label] if text})
        classes = tuple(task.classes) if task.classes else tuple(found)
        problems = _classification(cells[task.label], found, task, rows)
    else:
        problems = [
            p for column, of in cells.items() for p in not_numbers(column, _no_numbers(of), rows)
        ]
    texts = {ids[i]: tuple(cells[column][at][1] for column in cells) for at, i in enumerate(order)}
    kept = {case: values for case, values in texts.items() if all(values)}
    excluded = {
        case: f"no value in column `{list(cells)[values.index('')]}`"
        for case, values in texts.items()
        if case not in kept
    }
    return Values(kept, excluded, classes, problems)


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
    import numpy as np

    table = {str(column): cells for column, cells in _cells(cases)}
    twice = sorted(case for case, n in Counter(map(str, table["case_id"])).items() if n > 1)
    if twice:
        raise SheetError(f"case table: {', '.join(twice[:8])} are in more than one row")
    for column in columns_of(task):
        if column not in table:
            raise SheetError(
                f"tasks.{name}: the case table has no column `{column}`"
                f"{nearest(column, [c for c in table if c != 'case_id'])}. A column whose values "
                f"differ between the slides of a case is not a label of the case and is left out "
                f"of the table"
            )
    found = read_values(table, task)
    if found.problems:
        raise SheetError("\n".join(f"tasks.{name}: {problem}" for problem in found.problems))
    if isinstance(task, ClassificationTask):
        _require_classes(found, name, task)
        index = {c: i for i, c in enumerate(found.classes)}
        label = np.array([index[text] for (text,) in found.texts.values()], dtype=np.int64)
        return Labels(tuple(found.texts), found.excluded, classes=found.classes, label=label)
    values = np.array(
        [[float(text) for text in texts] for texts in found.texts.values()], dtype=np.float64
    ).reshape(-1, len(columns_of(task)))
    if isinstance(task, SurvivalTask):
        time, event = values[:, 0].copy(), values[:, 1] == 1
        return Labels(tuple(found.texts), found.excluded, time=time, event=event)
    return Labels(tuple(found.texts), found.excluded, targets=values)


def class_name(value: object) -> str | None:
    """A cell as text, None where missing. `1.0` reads `1`: a gap makes floats of integers."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return filled(str(value).strip()) or None


def number_text(value: object) -> str | None:
    """As `class_name`, with 1 and 0 for a column of booleans."""
    is_bool = type(value).__name__ in ("bool", "bool_")
    return str(int(bool(value))) if is_bool else class_name(value)


def canonical(text: str) -> str:
    """Numbers compare as numbers: 12 and 12.0 are no conflict."""
    value = number(text)
    return text if value is None else repr(value).removesuffix(".0")


def folded_class(text: str) -> str:
    """What is left of a class when how it was typed does not count."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = re.sub(r"[\s_]|(?<=[a-z])-(?=[a-z])", "", plain)
    return canonical(plain)


def _survival(
    cells: Mapping[str, list[Cell]], task: SurvivalTask, rows: Mapping[str, str]
) -> list[str]:
    time, event = cells[task.time], cells[task.event]
    problems = not_numbers(task.time, _no_numbers(time), rows)
    problems += not_numbers(task.event, _no_numbers(event), rows)
    if early := where(time, lambda text: (number(text) or 0.0) <= 0 and number(text) is not None):
        problems.append(
            message(
                task.time,
                early,
                rows,
                f"without a time above 0 in {task.unit}",
                "correct the times, which count from diagnosis or surgery, or empty the labels of "
                "these cases to leave them out",
            )
        )
    other = where(event, lambda text: number(text) not in (None, 0.0, 1.0))
    if other:
        kinds = {canonical(text) for _, text in event if text}
        remedy = (
            "here 1 seems to be censored and 2 the event, as R's `survival` has it: subtract 1"
            if kinds == {"1", "2"}
            else "recode the column"
        )
        what = "with neither 1 (event) nor 0 (censored)"
        problems.append(message(task.event, other, rows, what, remedy))
    return problems


def _classification(
    cells: Sequence[Cell], found: Sequence[str], task: ClassificationTask, rows: Mapping[str, str]
) -> list[str]:
    problems = []
    if task.classes is not None:
        problems += [
            f"`classes` names {name!r}, which means no value in a sheet; give that class "
            f"another name in both"
            for name in task.classes
            if name.casefold() in EMPTY
        ]
        others = where(cells, lambda text: text not in task.classes)  # type: ignore[operator]
        if others:
            known = sorted(task.classes)
            close = {text: nearest(text, known) for _, text in others[:1]}
            what = f"with a value that is not one of `classes` ({', '.join(task.classes)})"
            remedy = (
                "correct the values, add the class, or empty the cells to leave these cases out"
                + "".join(hint for hint in close.values() if "did you mean" in hint)
            )
            problems.append(message(task.label, others, rows, what, remedy))
        return problems
    spelled: dict[str, list[str]] = {}
    for text in found:
        spelled.setdefault(folded_class(text), []).append(text)
    counts = Counter(text for _, text in cells)
    alike = [texts for texts in spelled.values() if len(texts) > 1]
    if alike:
        shown = "; ".join(
            " and ".join(f"{text!r} ({_cases(counts[text])})" for text in texts) for texts in alike
        )
        problems.append(
            f"column `{task.label}`: classes that differ only in how they are written: {shown}; "
            f"write each class in one way, or name them all in the task's `classes` if they are "
            f"different"
        )
    return problems


def _require_classes(found: Values, name: str, task: ClassificationTask) -> None:
    there = {text for (text,) in found.texts.values()}
    unknown = [c for c in found.classes if c not in there]
    if unknown:
        raise SheetError(
            f"tasks.{name}.classes: no case has `{unknown[0]}` in column `{task.label}`"
            f"{nearest(unknown[0], there)}"
        )
    if len(found.classes) < 2:
        raise SheetError(
            f"tasks.{name}: column `{task.label}` has only the class {list(found.classes)}; "
            f"a classification needs two"
        )


def _no_numbers(cells: Sequence[Cell]) -> list[Cell]:
    return where(cells, lambda text: number(text) is None)


def _cells(cases: pd.DataFrame | Table) -> Iterator[tuple[object, list[object]]]:
    """Columns of a data frame or of a mapping, which need not be imported to be read."""
    for column in cases:
        yield column, list(cases[column])  # type: ignore[index]


def _cases(n: int) -> str:
    return f"{n} case{'' if n == 1 else 's'}"
