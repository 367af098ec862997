"""What the sheet says of covariates such as age, sex and stage, read in one way when the sheet is
parsed and by every stage. Standard library alone.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.config.cohort import Covariate
from pipeline.contracts.label_cells import Cell, not_numbers
from pipeline.contracts.labels import Table, folded_class, number_text
from pipeline.contracts.values import number

MAX_LEVELS = 12  # of a category: more is a list of names


@dataclasses.dataclass(frozen=True)
class Column:
    """One covariate.

    Attributes:
        name: of the column.
        kind: how it counts.
        texts: case id -> what it says; '' where nothing.
    """

    name: str
    kind: Literal["number", "category"]
    texts: Mapping[str, str]

    @property
    def levels(self) -> list[str]:
        """The values that occur, sorted; '' is none."""
        return sorted({text for text in self.texts.values() if text})


def read_covariates(table: Table, wanted: Mapping[str, Covariate]) -> list[Column]:
    """The covariates of each case.

    Args:
        table: columns by name; one row a case, column `case_id` and those that are wanted.
        wanted: column -> how it counts.
    """
    ids = [str(case) for case in table["case_id"]]
    found = []
    for name, kind in wanted.items():
        texts = {case: number_text(v) or "" for case, v in zip(ids, table[name], strict=True)}
        there = [text for text in texts.values() if text]
        numbers = sum(number(text) is not None for text in there)
        # A column that is mostly numbers is meant as one: its texts are for the user to correct.
        is_number = kind == "number" or (kind == "auto" and 2 * numbers > len(there))
        found.append(Column(name, "number" if is_number else "category", texts))
    return found


def problems_of(column: Column, rows: Mapping[str, str] | None = None) -> list[str]:
    """What makes a covariate unfit, a message a cause.

    Args:
        column: the covariate.
        rows: case id -> its rows in the sheet, for messages.
    """
    name, levels = column.name, column.levels
    if len(levels) < 2:
        said = f"only the value {levels[0]!r}" if levels else "no value"
        return [f"column `{name}`: {said}; a covariate needs two, leave it out"]
    if column.kind == "number":
        wrong: list[Cell] = [(c, t) for c, t in column.texts.items() if t and number(t) is None]
        advice = f", or write cohort.covariates: {{{name}: category}}"
        return [problem + advice for problem in not_numbers(name, wrong, rows or {})]
    if len(levels) > MAX_LEVELS:
        shown = ", ".join(map(repr, levels[:3]))
        return [
            f"column `{name}`: {len(levels)} categories ({shown}, …), and {MAX_LEVELS} are the "
            f"most that can be learned from; join some of them in a new column, or leave it out"
        ]
    spelled: dict[str, list[str]] = {}
    for level in levels:
        spelled.setdefault(folded_class(level), []).append(level)
    alike = [" and ".join(map(repr, same)) for same in spelled.values() if len(same) > 1]
    if alike:
        return [
            f"column `{name}`: categories that differ only in how they are written: "
            f"{'; '.join(alike)}; write each in one way"
        ]
    return []


def unlike(column: Column, levels: Sequence[str]) -> list[str]:
    """Why a model cannot read a column, a message a cause.

    Args:
        column: of cases that it was not trained on.
        levels: of a category, those of the training cohort.
    """
    if column.kind == "number":
        wrong: list[Cell] = [(c, t) for c, t in column.texts.items() if t and number(t) is None]
        return not_numbers(column.name, wrong, {})
    return [
        f"column `{column.name}`: `{level}` is none of the categories that the models know "
        f"({', '.join(levels)}); write it as they do, or leave the cell empty"
        for level in column.levels
        if level not in levels
    ]


def told_of(column: Column, few: int = 5) -> str:
    """A covariate in a line, with what a reader should doubt.

    Args:
        column: without problems.
        few: a category with fewer cases is named.
    """
    there = [text for text in column.texts.values() if text]
    absent = len(column.texts) - len(there)
    if column.kind == "number":
        values = [float(text) for text in there]
        said = [f"number, {min(values):g} to {max(values):g}"]
    else:
        counts: Sequence[tuple[str, int]] = sorted(Counter(there).items())
        said = ["category, " + ", ".join(f"{level} {n}" for level, n in counts)]
        rare = [level for level, n in counts if n < few]
        if rare:
            said.append(f"CAREFUL: fewer than {few} cases are {', '.join(rare)}")
    if absent:
        said.append(f"{absent} of {len(column.texts)} cases without")
    if 2 * absent > len(column.texts):
        said.append("CAREFUL: most cases have none")
    return f"covariate {column.name}: {', '.join(said)}"
