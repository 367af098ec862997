"""One patient under several case ids, and one slide in several cases. Standard library only.

Folds keep a case together. A patient with two case ids is in training and in test at once, and
every result is then too good, without any other sign of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.contracts.patient import BARCODES, patient
from pipeline.contracts.values import visible

if TYPE_CHECKING:
    from pipeline.config.cohort import Accept, ColumnsConfig
    from pipeline.contracts.slide_row import SlideRow

SHOWN = 3

_SCIENTIFIC = re.compile(r"[+-]?\d+([.,]\d+)?[eE]\+?\d+")
_FLOAT = re.compile(r"[+-]?\d+\.0+")
# What the identity of a slide without a readable file says.
_NO_CONTENT = ("none", "missing", "forbidden")


def case_problems(
    rows: Sequence[SlideRow], columns: ColumnsConfig, accepted: Iterable[Accept]
) -> list[str]:
    """Case ids that look like one patient's, and ids that a spreadsheet has turned into numbers.

    Args:
        rows: the cohort.
        columns: names of the columns, for the messages.
        accepted: what the user has looked at and says is right.
    """
    problems = []
    if "float_ids" not in accepted:
        problems += _scientific(rows, columns)
    if "similar_case_ids" not in accepted:
        problems += _similar(rows, columns)
        problems += _barcodes(rows, columns)
    return problems


def shared_slides(rows: Sequence[SlideRow], identities: Mapping[str, str]) -> list[str]:
    """Slides of different cases that have the same content: copies, links, other paths of a file.

    Args:
        rows: the cohort.
        identities: slide id -> identity of its content.
    """
    of_content: dict[str, list[SlideRow]] = {}
    for row in rows:
        content = identities[row.slide_id].split("+")[0]
        if content not in _NO_CONTENT:
            of_content.setdefault(content, []).append(row)
    found = [g for g in of_content.values() if len({r.case_id for r in g}) > 1]
    if not found:
        return []
    examples = "; ".join(
        ", ".join(f"row {r.row} (slide `{r.slide_id}`, case `{r.case_id}`)" for r in group[:SHOWN])
        for group in found[:SHOWN]
    )
    return [
        f"{len(found)} slide(s) are in several cases, by a copy, a link or another path of one "
        f"file: {examples}{_more(found)}. Training and test would share them: keep each slide in "
        f"one case, or set cohort.accept: [shared_slides]"
    ]


def _scientific(rows: Sequence[SlideRow], columns: ColumnsConfig) -> list[str]:
    problems = []
    fields: tuple[tuple[str, Callable[[SlideRow], str]], ...] = (
        (columns.case_id, lambda row: row.case_id),
        (columns.slide_id, lambda row: row.slide_id),
    )
    for column, of in fields:
        for pattern, what in (
            (_SCIENTIFIC, "digits of the ids are lost, and different ids may have become one"),
            (_FLOAT, "files and other tables name them without `.0`"),
        ):
            wrong = [row for row in rows if pattern.fullmatch(of(row))]
            if wrong:
                some = ", ".join(f"`{of(r)}` (row {r.row})" for r in wrong[:SHOWN])
                problems.append(
                    f"column `{column}`: {len(wrong)} id(s) look like numbers that a spreadsheet "
                    f"or pandas has made of them: {some}{_more(wrong)}; {what}. Export the table "
                    f"again with this column as text, or set cohort.accept: [float_ids] if these "
                    f"are the ids"
                )
    return problems


def _similar(rows: Sequence[SlideRow], columns: ColumnsConfig) -> list[str]:
    spelled: dict[str, dict[str, int]] = {}
    for row in rows:
        spelled.setdefault(patient(row.case_id), {}).setdefault(row.case_id, row.row)
    found = [ids for ids in spelled.values() if len(ids) > 1]
    if not found:
        return []
    examples = "; ".join(
        " and ".join(f"`{case}` (row {row})" for case, row in list(ids.items())[:SHOWN])
        for ids in found[:SHOWN]
    )
    return [
        f"column `{columns.case_id}`: {len(found)} patient(s) seem to have several case ids: "
        f"{examples}{_more(found)}. Only letter case, spaces, `-` or `_`, zeros in front, `.0` or "
        f"the sample part of a barcode tell them apart, and training and test would share "
        f"patients. Give each patient one id (of a TCGA barcode the first 12 characters), or set "
        f"cohort.accept: [similar_case_ids] if they are different patients"
    ]


def _barcodes(rows: Sequence[SlideRow], columns: ColumnsConfig) -> list[str]:
    """Slides whose own barcode, in id or file name, says that two cases are one patient."""
    cases: dict[str, dict[str, SlideRow]] = {}
    for row in rows:
        for name in (row.slide_id, Path(row.path).name):
            barcode = BARCODES.fullmatch(visible(name).strip().casefold())
            if barcode:
                cases.setdefault(barcode[1], {}).setdefault(patient(row.case_id), row)
                break
    found = [by_case for by_case in cases.values() if len(by_case) > 1]
    if not found:
        return []
    examples = "; ".join(
        " and ".join(
            f"`{r.slide_id}` (case `{r.case_id}`, row {r.row})"
            for r in list(by_case.values())[:SHOWN]
        )
        for by_case in found[:SHOWN]
    )
    return [
        f"{len(found)} patient(s), by the barcodes of their slides, are in several cases: "
        f"{examples}{_more(found)}. Give all slides of a patient the same `{columns.case_id}`, or "
        f"set cohort.accept: [similar_case_ids] if they are different patients"
    ]


def _more(found: Sequence[object]) -> str:
    return f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
