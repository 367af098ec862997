"""The mapping stage: case -> teacher -> feature files, and what came of every slide.

Writes under the results folder:

- `case_to_features.json`: the feature files of every case with a usable slide
  (`contracts.case_map`).
- `coverage.parquet`, `ledger.parquet`, `cases.parquet`, each also as CSV.
- `cohort_flow.json`: the counts of the report's first table.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pipeline.config.mapping import MappingConfig
from pipeline.contracts import slide_warnings
from pipeline.contracts.case_map import CaseMap, TeacherLevels, write_case_map
from pipeline.contracts.columns import SLIDE_COLUMNS
from pipeline.contracts.ledger import Record, enforce, read_manifests
from pipeline.errors import ArtifactError, UserError
from pipeline.files.artifacts import sweep, write_json
from pipeline.files.parquet import read_table, write_table
from pipeline.mapping.cases import case_table, missing_teachers
from pipeline.mapping.coverage import TILING, Coverage, join
from pipeline.mapping.flow import cohort_flow, failures, ledger_table
from pipeline.mapping.scales import unusual_scales

# Raised when the tables of cases, coverage or ledger change. 1: the first.
VERSION = 1


def run(
    *,
    cfg: MappingConfig,
    teachers: list[str],
    root: Path,
    tiling: list[Path],
    features: list[Path],
) -> None:
    """Join the manifests of tiling and extraction to the sheet.

    The tables are written before the limits are enforced, so that a run that ends here leaves the
    list of what went wrong.

    Args:
        cfg: the stage's config.
        teachers: names in the config's order.
        root: the results folder.
        tiling: tiling manifests; none when all features are imported.
        features: extraction manifests of all teachers.

    Raises:
        ArtifactError: manifests, slides and feature files do not fit together.
        UserError: too many slides failed, or no case is left to compare the teachers on.
    """
    sweep(root)
    slides = _slides(root / "slides.parquet")
    tiled = _tiled(read_manifests(tiling), slides)
    coverage = join(slides, teachers, read_manifests(features), root)
    cases, slide_columns = case_table(slides, coverage)
    lacking = missing_teachers(cases, slides, coverage)

    write_table(root / "coverage.parquet", coverage.table, csv=True)
    ledger = ledger_table(slides, tiled, coverage, unusual_scales(tiled))
    write_table(root / "ledger.parquet", ledger, csv=True)
    write_table(root / "cases.parquet", cases, csv=True)
    flow = cohort_flow(
        mode=cfg.cases,
        slides=slides,
        cases=cases,
        tiling=tiled,
        coverage=coverage,
        lacking=lacking,
        slide_columns=slide_columns,
    )
    write_json(root / "cohort_flow.json", flow)
    rows = zip(ledger["slide_id"], ledger["kind"], ledger["reason"], strict=True)
    for line in slide_warnings.summary(slide_warnings.in_ledger(rows), str(root / "ledger.csv")):
        print(line, flush=True)

    enforce(failures(tiled, coverage), cfg.max_failed_fraction)
    _check_cases(coverage, cases, cfg)
    write_case_map(root, _case_map(slides, coverage))


def _slides(path: Path) -> pd.DataFrame:
    slides = read_table(path)
    absent = [c for c in SLIDE_COLUMNS if c not in slides.columns]
    if absent:
        raise ArtifactError(f"{path}: no column {', '.join(absent)}; delete it and run `cohort`")
    return slides.assign(
        slide_id=slides["slide_id"].astype(str), case_id=slides["case_id"].astype(str)
    ).sort_values("slide_id", ignore_index=True)


def _tiled(records: list[Record], slides: pd.DataFrame) -> dict[str, Record]:
    tiled = {r.slide_id: r for r in records}
    known = set(slides["slide_id"])
    unknown = sorted(set(tiled) - known)
    silent = sorted(known - set(tiled)) if tiled else []
    for what, found in (("speak of unknown", unknown), ("say nothing of", silent)):
        if found:
            raise ArtifactError(
                f"the tiling manifests {what} slides: {', '.join(found[:20])}; run `tiling` again"
            )
    if any(r.stage != TILING for r in records):
        raise ArtifactError("a manifest that was given as tiling's comes from another stage")
    return tiled


def _check_cases(coverage: Coverage, cases: pd.DataFrame, cfg: MappingConfig) -> None:
    for teacher, paths in coverage.paths.items():
        if not paths:
            some = sorted(
                coverage.table.loc[coverage.table["teacher"] == teacher, "reason"].unique()
            )
            raise UserError(
                f"teacher {teacher} has no features of any slide. Look at its `path` and "
                f"`pattern` if they are imported; the ledger says: {'; '.join(some[:3])}"
            )
    if cfg.cases == "intersection" and not cases["complete"].any():
        counts = {teacher: len(paths) for teacher, paths in coverage.paths.items()}
        raise UserError(
            f"no case has features of all teachers (slides per teacher: {counts}), so there is "
            f"nothing to compare them on. Take out a teacher, or set mapping.cases: union"
        )


def _case_map(slides: pd.DataFrame, coverage: Coverage) -> CaseMap:
    cases: dict[str, dict[str, list[str]]] = {}
    for slide, case in zip(slides["slide_id"], slides["case_id"], strict=True):
        for teacher in coverage.usable(slide):
            files = cases.setdefault(case, {}).setdefault(teacher, [])
            files.append(coverage.paths[teacher][slide])
    teachers = {name: TeacherLevels(dict(coverage.dims[name])) for name in coverage.paths}
    return CaseMap(teachers, cases)
