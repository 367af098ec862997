"""The mapping stage: case -> teacher -> feature files, and what came of every slide.

Two jobs, so that what went wrong stays to be read where too much did:

- `run` writes `coverage.parquet`, `ledger.parquet`, each also as CSV, and `cohort_flow.json`, the
  counts of the report's first table.
- `check` ends the run where too many slides are lost, and else writes `cases.parquet` and
  `case_to_features.json`, the feature files of every case with a usable slide
  (`contracts.case_map`), which all later stages read.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.config.mapping import MappingConfig
from pipeline.contracts import slide_warnings
from pipeline.contracts.case_map import CaseMap, TeacherLevels, write_case_map
from pipeline.contracts.cohort_flow import write_cohort_flow
from pipeline.contracts.columns import SLIDE_COLUMNS
from pipeline.contracts.ledger import Record, Status, enforce, read_manifests
from pipeline.errors import ArtifactError, UserError
from pipeline.files.artifacts import sweep
from pipeline.files.parquet import read_table, write_table
from pipeline.mapping import coverage
from pipeline.mapping.cases import case_table, missing_teachers
from pipeline.mapping.coverage import TILING, Coverage, with_warnings
from pipeline.mapping.flow import cohort_flow, failures, ledger_table, lost_of_teachers
from pipeline.mapping.scales import unusual_scales

# Raised when the tables of cases, coverage or ledger change. 1: the first. 2: a file that several
# slides of a case share counts once; feature files unlike the others are in the ledger.
VERSION = 2

LEDGER = "ledger.csv"


@dataclasses.dataclass(frozen=True)
class Joined:
    """The manifests of tiling and extraction, joined to the sheet.

    Attributes:
        slides: the slide table.
        tiled: slide id -> its record of tiling; empty when all features are imported.
        coverage: what every teacher has.
        cases: the table of cases.
        slide_columns: columns of the sheet that are not labels of a case.
    """

    slides: pd.DataFrame
    tiled: dict[str, Record]
    coverage: Coverage
    cases: pd.DataFrame
    slide_columns: list[str]


def join(
    *, teachers: list[str], root: Path, tiling: Sequence[Path], features: Sequence[Path]
) -> Joined:
    """Join the manifests to the sheet.

    Args:
        teachers: names in the config's order.
        root: the results folder.
        tiling: tiling manifests; none when all features are imported.
        features: extraction manifests of all teachers.

    Raises:
        ArtifactError: manifests, slides and feature files do not fit together.
    """
    slides = _slides(root / "slides.parquet")
    tiled = _tiled(read_manifests(tiling), slides)
    tiled = with_warnings(tiled, unusual_scales(tiled))
    found = coverage.join(slides, teachers, read_manifests(features), root)
    return Joined(slides, tiled, found, *case_table(slides, found))


def run(*, cfg: MappingConfig, joined: Joined, root: Path) -> None:
    """Write what became of every slide, and say what there is to know of those with a warning.

    Args:
        cfg: the stage's config.
        joined: the manifests and the sheet.
        root: the results folder.
    """
    sweep(root)
    write_table(root / "coverage.parquet", joined.coverage.table, csv=True)
    ledger = ledger_table(joined.slides, joined.tiled, joined.coverage)
    write_table(root / "ledger.parquet", ledger, csv=True)
    flow = cohort_flow(
        mode=cfg.cases,
        slides=joined.slides,
        cases=joined.cases,
        tiling=joined.tiled,
        coverage=joined.coverage,
        lacking=missing_teachers(joined.cases, joined.slides, joined.coverage),
        slide_columns=joined.slide_columns,
    )
    write_cohort_flow(root, flow)
    rows = zip(ledger["slide_id"], ledger["kind"], ledger["reason"], strict=True)
    for line in slide_warnings.summary(slide_warnings.in_ledger(rows), str(root / LEDGER)):
        print(line, flush=True)
    for line in lost_of_teachers(joined.tiled, joined.coverage):
        print(line, flush=True)


def check(*, cfg: MappingConfig, joined: Joined, root: Path) -> None:
    """End the run where too much is lost, else write the table of cases and the map of their files.

    Args:
        cfg: the stage's config.
        joined: the manifests and the sheet.
        root: the results folder.

    Raises:
        UserError: too many slides failed or are empty, or no case is left to compare the teachers
            on.
    """
    sweep(root)
    limits: dict[Status, float] = {
        "failed": cfg.max_failed_fraction,
        "empty": cfg.max_empty_fraction,
    }
    enforce(failures(joined.tiled, joined.coverage), limits, str(root / LEDGER))
    _check_cases(joined.coverage, joined.cases, cfg)
    write_table(root / "cases.parquet", joined.cases, csv=True)
    write_case_map(root, _case_map(joined.slides, joined.coverage, root))


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


def _case_map(slides: pd.DataFrame, coverage: Coverage, root: Path) -> CaseMap:
    cases: dict[str, dict[str, list[str]]] = {}
    taken: set[tuple[str, str, str]] = set()
    for slide, case in zip(slides["slide_id"], slides["case_id"], strict=True):
        for teacher in coverage.usable(slide):
            files = cases.setdefault(case, {}).setdefault(teacher, [])
            path = coverage.paths[teacher][slide]
            # `pattern: "{case_id}.npy"` names one file for all slides of a case.
            own = (case, teacher, os.path.realpath(root / path))
            if own not in taken:
                taken.add(own)
                files.append(path)
    teachers = {name: TeacherLevels(dict(coverage.dims[name])) for name in coverage.paths}
    return CaseMap(teachers, cases)
