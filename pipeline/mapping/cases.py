"""The case table: one row a patient, with what its slides offer and its labels."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pipeline.contracts.columns import CASE_COLUMNS, SLIDE_COLUMNS
from pipeline.errors import SheetError
from pipeline.mapping.coverage import Coverage


def case_table(slides: pd.DataFrame, coverage: Coverage) -> tuple[pd.DataFrame, list[str]]:
    """One row per case, sorted by case.

    A case is complete when every teacher has at least one of its slides; a slide is usable when at
    least one teacher has it. A case's site is empty where its slides come from several.

    Args:
        slides: the slide table with its label columns.
        coverage: what every teacher has.

    Returns:
        The table (`CASE_COLUMNS`, then a column a label), and the columns of the sheet that are not
        labels of a case because they differ between the slides of one.

    Raises:
        SheetError: a column of the sheet has the name of one of `CASE_COLUMNS`.
    """
    extra = [c for c in slides.columns if c not in SLIDE_COLUMNS]
    taken = [c for c in extra if c in CASE_COLUMNS]
    if taken:
        raise SheetError(
            f"the sheet's column `{taken[0]}` has the name of a column that the pipeline makes; "
            f"rename it"
        )
    rows = []
    for case, group in slides.groupby("case_id", sort=True):
        ids = sorted(group["slide_id"])
        teachers = {t for slide in ids for t in coverage.usable(slide)}
        sites = {str(s) for s in group["site"].fillna("")} - {""}
        rows.append(
            {
                "case_id": str(case),
                "site": sites.pop() if len(sites) == 1 else "",
                "n_slides": len(ids),
                "n_usable_slides": sum(bool(coverage.usable(slide)) for slide in ids),
                "complete": teachers == set(coverage.paths),
            }
        )
    table = pd.DataFrame(rows, columns=list(CASE_COLUMNS))
    labels, varying = _labels(slides, extra)
    return table.merge(labels, on="case_id", how="left", validate="one_to_one"), varying


def missing_teachers(
    cases: pd.DataFrame, slides: pd.DataFrame, coverage: Coverage
) -> dict[str, list[str]]:
    """The teachers that an incomplete case lacks, by case.

    Args:
        cases: the table of cases.
        slides: the table of slides.
        coverage: which slide has features of which teacher.
    """
    incomplete = set(cases.loc[~cases["complete"], "case_id"])
    had: dict[str, set[str]] = {case: set() for case in sorted(incomplete)}
    for slide, case in zip(slides["slide_id"], slides["case_id"], strict=True):
        if case in had:
            had[case] |= set(coverage.usable(slide))
    return {case: [t for t in coverage.paths if t not in found] for case, found in had.items()}


def _labels(slides: pd.DataFrame, columns: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """One value a case where its slides agree; an empty cell says nothing."""
    blank = slides[list(columns)].apply(
        lambda c: c.where(c.astype(str).str.strip() != "") if c.dtype.kind not in "biuf" else c
    )
    grouped = blank.assign(case_id=slides["case_id"]).groupby("case_id", sort=True)
    counts = grouped[list(columns)].nunique() if columns else pd.DataFrame()
    varying = [c for c in columns if counts[c].max() > 1]
    kept = [c for c in columns if c not in varying]
    if not kept:
        return pd.DataFrame({"case_id": sorted(set(slides["case_id"]))}), varying
    return grouped[kept].first().reset_index(), varying
