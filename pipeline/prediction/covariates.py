"""The columns that a model reads besides slides, from a table that comes with them."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.contracts.covariates import Column, read_covariates, unlike
from pipeline.contracts.labels import Table
from pipeline.contracts.model_card import CovariateCard
from pipeline.contracts.values import label
from pipeline.errors import UserError, nearest

CASE = "case_id"
SHOWN = 5


def cards(columns: Sequence[Column]) -> list[CovariateCard]:
    """What a model file says of the training cohort's columns."""
    found = []
    for column in columns:
        levels = column.levels
        if column.kind == "number":
            values = sorted(map(float, levels))
            levels = [f"{values[0]:g}", f"{values[-1]:g}"] if values else []
        found.append(CovariateCard(column.name, column.kind, levels))
    return found


def read_given(
    path: Path | None, wanted: Sequence[CovariateCard], cases: Collection[str] | None
) -> list[Column]:
    """The covariates of cases to predict.

    Args:
        path: a CSV or TSV with the column `case_id` and those that the model reads, a row a case;
            an empty cell is a missing value. None: there is none.
        wanted: what the model reads.
        cases: that are predicted; None: those of the table.

    Raises:
        UserError: the table is missing though the model reads it, or given though it reads none;
            a column is missing or is none that the model reads; a case is missing or twice; a cell
            is no number, or a category that the training cohort did not have.
    """
    names = [one.name for one in wanted]
    if path is None:
        if names:
            raise UserError(
                f"the model reads {', '.join(names)} of each case; give a table with the columns "
                f"{', '.join([CASE, *names])} with --covariates FILE.csv (an empty cell is a "
                "missing value)"
            )
        return []
    if not names:
        raise UserError(f"--covariates {path}: the model reads no covariates; leave it out")
    rows = _rows(path, names)
    table = {name: [row[name] for row in rows] for name in (CASE, *names)}
    ids = table[CASE]
    twice = sorted({case for case in ids if ids.count(case) > 1})
    problems = [f"case {', '.join(twice[:SHOWN])}: more than one row"] if twice else []
    absent = sorted(set(cases or ()) - set(ids))
    if absent:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        problems.append(
            f"no row for case {', '.join(absent[:SHOWN])}{more}; a case whose values are not known "
            "has a row with empty cells"
        )
    columns = columns_of(table, wanted)
    for column, card in zip(columns, wanted, strict=True):
        problems += unlike(column, card.levels)
    if problems:
        raise UserError(f"--covariates {path}:\n" + "\n".join(f"  - {p}" for p in problems))
    return columns


def columns_of(table: Table, wanted: Sequence[CovariateCard]) -> list[Column]:
    """The covariates, each read as in the training cohort.

    Args:
        table: columns by name, one row a case.
        wanted: what the model reads.
    """
    return read_covariates(table, {one.name: one.kind for one in wanted})


def _rows(path: Path, names: Sequence[str]) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--covariates {path}: cannot be read ({error})") from None
    head = text.partition("\n")[0]
    found = csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in head else ",")
    there = [name.strip() for name in found.fieldnames or ()]
    needed = [CASE, *names]
    absent = [name for name in needed if name not in there]
    unknown = [name for name in there if name not in needed]
    problems = [f"no column `{name}`{nearest(name, unknown)}" for name in absent]
    problems += [f"column `{name}` is none that the model reads; remove it" for name in unknown]
    if problems:
        raise UserError(
            f"--covariates {path}: {'; '.join(problems)}. The columns are {', '.join(needed)}"
        )
    found.fieldnames = there
    rows = [{name: label(row[name] or "") for name in needed} for row in found]
    if not rows:
        raise UserError(f"--covariates {path}: has no rows")
    return rows
