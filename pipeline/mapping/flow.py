"""What became of every slide and case: the failure ledger and the first counts of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

import pandas as pd

from pipeline.contracts import slide_warnings
from pipeline.contracts.cohort_flow import (
    CaseCounts,
    CohortFlow,
    SlideCounts,
    StageCounts,
    TeacherCounts,
)
from pipeline.contracts.ledger import Record
from pipeline.mapping.coverage import MISSING_KIND, TILING, Coverage, status_of


def carried(record: Record, tiling: Mapping[str, Record]) -> bool:
    """Whether an extraction record only repeats what tiling said of the slide."""
    before = tiling.get(record.slide_id)
    return (
        before is not None
        and before.status != "ok"
        and (before.status, before.kind) == (record.status, record.kind)
    )


def ledger_table(
    slides: pd.DataFrame,
    tiling: Mapping[str, Record],
    coverage: Coverage,
) -> pd.DataFrame:
    """One row per slide and stage where something is to be told.

    Columns: slide_id, case_id, stage, status, kind, reason. A warning about a slide that was used
    all the same has the status `ok` and the warning's kind. What extraction only repeats from
    tiling is not told twice.

    Args:
        slides: the slide table.
        tiling: slide id -> its record of tiling.
        coverage: what every teacher has.
    """
    case_of = dict(zip(slides["slide_id"], slides["case_id"], strict=True))
    rows = []
    for record in _all_records(tiling, coverage):
        told = {"slide_id": record.slide_id, "case_id": case_of[record.slide_id]}
        told["stage"] = record.stage
        rows += [
            {**told, "status": record.status, "kind": warning.kind, "reason": warning.text}
            for warning in slide_warnings.of(record.facts)
        ]
        if record.status != "ok" and not (record.stage != TILING and carried(record, tiling)):
            rows.append(
                {
                    **told,
                    "status": status_of(record),
                    "kind": record.kind,
                    "reason": record.reason,
                }
            )
    columns = ["slide_id", "case_id", "stage", "status", "kind", "reason"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        ["slide_id", "stage", "kind", "reason"], ignore_index=True
    )


def failures(tiling: Mapping[str, Record], coverage: Coverage) -> list[Record]:
    """The records that `mapping.max_failed_fraction` is measured on: slides that had work to do.

    Left out: slides that the user or a policy excluded, and a slide's absence from one imported
    teacher while another teacher has it.
    """
    kept = []
    for record in _all_records(tiling, coverage):
        absent = record.kind == MISSING_KIND and bool(coverage.usable(record.slide_id))
        if record.status != "excluded" and not absent:
            kept.append(record)
    return kept


def lost_of_teachers(tiling: Mapping[str, Record], coverage: Coverage) -> list[str]:
    """For the terminal, the slides that a teacher lacks: one line per teacher and kind of reason.

    The summary of a run counts slides that no teacher has; those that one has are told here.
    """
    lines = []
    for teacher, records in coverage.records.items():
        groups: dict[str, list[Record]] = {}
        for record in records.values():
            if record.status != "ok" and not carried(record, tiling):
                groups.setdefault(record.kind, []).append(record)
        for kind, group in sorted(groups.items(), key=lambda found: (-len(found[1]), found[0])):
            first = min(group, key=lambda record: record.slide_id)
            lines.append(
                f"teacher {teacher}: {len(group)} of {len(records)} slides have no features, "
                f"{kind}; {first.slide_id}: {first.reason}"
            )
    return lines


def cohort_flow(
    *,
    mode: Literal["intersection", "union"],
    slides: pd.DataFrame,
    cases: pd.DataFrame,
    tiling: Mapping[str, Record],
    coverage: Coverage,
    lacking: Mapping[str, list[str]],
    slide_columns: list[str],
) -> CohortFlow:
    """The counts: slides per stage, cases in, usable, complete and used, teachers.

    Args:
        mode: mapping.cases, `intersection` or `union`.
        slides, cases: the tables.
        tiling: slide -> its record; empty when nothing was tiled.
        coverage: what every teacher has.
        lacking: incomplete case -> the teachers it lacks.
        slide_columns: columns of the sheet that are not labels of a case.
    """
    usable = int((cases["n_usable_slides"] > 0).sum())
    complete = int(cases["complete"].sum())
    stages = [_stage(TILING, tiling.values())] if tiling else []
    for teacher, records in coverage.records.items():
        own = [r for r in records.values() if not carried(r, tiling)]
        stages.append(_stage(f"extraction/{teacher}", own))
    table = coverage.table[coverage.table["status"] == "ok"]
    files = table.drop_duplicates(["teacher", "case_id", "path"])  # slides may share a case's file
    return CohortFlow(
        mode=mode,
        slides=SlideCounts(
            total=len(slides),
            usable=int(cases["n_usable_slides"].sum()),
            with_all_teachers=sum(
                len(coverage.usable(s)) == len(coverage.paths) for s in slides["slide_id"]
            ),
        ),
        cases=CaseCounts(
            total=len(cases),
            usable=usable,
            complete=complete,
            used=complete if mode == "intersection" else usable,
        ),
        lost=_lost(tiling, coverage),
        warned=len({r.slide_id for r in _all_records(tiling, coverage) if _warned(r)}),
        stages=stages,
        teachers={
            teacher: TeacherCounts(
                slides=len(coverage.paths[teacher]),
                cases=int(table.loc[table["teacher"] == teacher, "case_id"].nunique()),
                tiles=int(files.loc[files["teacher"] == teacher, "n_tiles"].sum()),
                dims=dict(coverage.dims[teacher]),
            )
            for teacher in coverage.paths
        },
        incomplete_cases=dict(lacking),
        slide_columns=slide_columns,
    )


def _lost(tiling: Mapping[str, Record], coverage: Coverage) -> dict[str, int]:
    """Kind of reason -> slides that no teacher has features of, by the first stage that said so."""
    first: dict[str, str] = {}
    for record in _all_records(tiling, coverage):
        if record.status != "ok" and not coverage.usable(record.slide_id):
            first.setdefault(record.slide_id, record.kind)
    return dict(sorted(Counter(first.values()).items()))


def _warned(record: Record) -> bool:
    return record.status == "ok" and bool(slide_warnings.of(record.facts))


def _stage(name: str, records: Iterable[Record]) -> StageCounts:
    records = list(records)
    counts = Counter(status_of(r) for r in records)
    kinds = Counter(r.kind for r in records if r.status != "ok")
    return StageCounts(
        stage=name,
        came_in=len(records),
        ok=counts["ok"],
        empty=counts["empty"],
        failed=counts["failed"],
        excluded=counts["excluded"],
        missing=counts["missing"],
        kinds=dict(sorted(kinds.items())),
    )


def _all_records(tiling: Mapping[str, Record], coverage: Coverage) -> list[Record]:
    found = list(tiling.values())
    for records in coverage.records.values():
        found += records.values()
    return found
