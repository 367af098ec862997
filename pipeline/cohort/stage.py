"""The stage: check the cohort, and write it down once for all that follows."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cohort.checks import MAX_SHOWN
from pipeline.cohort.covariates import check_covariates
from pipeline.cohort.labels import check_labels, summary
from pipeline.cohort.sheet import chunk_rows, identities, slide_rows
from pipeline.cohort.synthetic import embedded
from pipeline.cohort.synthetic.oracle import oracle
from pipeline.contracts.cohort_facts import CohortCounts, CohortFacts, write_cohort_facts
from pipeline.contracts.ledger import chunk_of
from pipeline.contracts.slide_row import SlideRow
from pipeline.contracts.values import number
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import sweep
from pipeline.files.parquet import write_table

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.config.cohort import CohortConfig, CohortJob

# Raised when the slide table or the cohort's facts change. 1: the first. 2: the embedded cohort has
# age, sex and stage.
VERSION = 2

_INTEGER = re.compile(r"-?\d{1,18}")
_PADDED = re.compile(r"[+-]?0\d")


def run(*, job: CohortJob, root: Path, base: Path) -> None:
    """Write `slides.parquet` (also as CSV) and last `cohort.json`.

    Args:
        job: the config, and the tasks whose labels are checked.
        root: results folder of the cohort.
        base: folder that relative paths of the config start from.

    Raises:
        SheetError: the sheet or a label cannot be used.
        ArtifactError: the embedded cohort's slides have not been drawn.
    """
    cfg, tasks = job.cohort, job.tasks
    sweep(root)
    rows = slide_rows(cfg, base)
    check_labels(rows, tasks, accepted=cfg.accept)
    check_covariates(rows, cfg.covariates, tasks)
    if cfg.source == "synthetic":
        _require_drawn(rows)
        embedded.write_tables(cfg, embedded.sheet_path(cfg, base))
    known = identities(cfg, rows)
    named = [movable(row, base) for row in rows]
    write_table(root / "slides.parquet", slide_table(named, known, cfg.chunks, tasks), csv=True)
    write_cohort_facts(root, _facts(cfg, rows, known, tasks))


def run_chunk(*, cfg: CohortConfig, chunk: int, base: Path, out: Path, workers: int) -> None:
    """Write the slide table of one chunk; slides of the embedded cohort are drawn first.

    It depends on nothing but the chunk's own slides, so that another slide elsewhere in the cohort
    leaves it, and all that is made from it, untouched.

    Args:
        cfg: the cohort section.
        chunk: the hash bucket.
        base: folder that relative paths of the config start from.
        out: the Parquet file to write.
        workers: processes that draw at once.
    """
    sweep(out.parent)
    rows = chunk_rows(cfg, base, chunk)
    if cfg.source == "synthetic":
        sheet = embedded.sheet_path(cfg, base)
        embedded.generate(cfg=cfg, sheet=sheet, workers=workers, chunk=chunk)
    known = identities(cfg, rows)
    write_table(out, slide_table([bare(r, base) for r in rows], known, cfg.chunks, {}))


def bare(row: SlideRow, base: Path) -> SlideRow:
    """What a chunk's table holds of a slide: no labels, which decide nothing before the folds."""
    return dataclasses.replace(movable(row, base), labels={})


def movable(row: SlideRow, base: Path) -> SlideRow:
    """The row with files below the working folder named from there: a cohort can move whole."""
    path, mask, coordinates = (portable(p, base) for p in (row.path, row.mask, row.coordinates))
    return dataclasses.replace(row, path=path, mask=mask, coordinates=coordinates)


def portable(path: str, base: Path) -> str:
    """A path relative to `base` where it lies below it, else as it is."""
    start = f"{base.absolute()}{os.sep}"
    return path[len(start) :] if path.startswith(start) else path


def slide_table(
    rows: Sequence[SlideRow], known: Mapping[str, str], chunks: int, tasks: Mapping[str, Any]
) -> pd.DataFrame:
    """One row a slide.

    Columns: slide_id, case_id, path, site, mask, coordinates, identity (text, '' where there is
    none), mpp (float, NaN: the file's), chunk (int), then the sheet's other columns: numbers where
    every value is one, else text, missing where empty. Class labels of the tasks stay text as they
    are.

    Args:
        rows: the cohort.
        known: slide id -> identity.
        chunks: how many hash buckets there are.
        tasks: name -> task config.
    """
    import pandas as pd

    classes = {task.label for task in tasks.values() if task.type == "classification"}
    fixed = {
        "slide_id": [r.slide_id for r in rows],
        "case_id": [r.case_id for r in rows],
        "path": [r.path for r in rows],
        "mpp": [math.nan if r.mpp is None else r.mpp for r in rows],
        "site": [r.site for r in rows],
        "mask": [r.mask for r in rows],
        "coordinates": [r.coordinates for r in rows],
        "chunk": [chunk_of(r.slide_id, chunks) for r in rows],
        "identity": [known[r.slide_id] for r in rows],
    }
    labels = {
        name: _typed([r.labels[name] for r in rows], as_text=name in classes)
        for name in rows[0].labels
    }
    return pd.DataFrame({**fixed, **labels})


def _typed(values: list[str], as_text: bool) -> list[Any]:
    """Numbers where every value that is there is one; 007 is a name, not the number 7."""
    there = [v for v in values if v]
    numeric = there and all(number(v) is not None and not _PADDED.match(v) for v in there)
    if as_text or not numeric:
        return [v or None for v in values]
    if len(there) == len(values) and all(_INTEGER.fullmatch(v) for v in there):
        return [int(v) for v in values]
    return [float(v) if v else math.nan for v in values]


def _require_drawn(rows: Sequence[SlideRow]) -> None:
    absent = [r.path for r in rows if not Path(r.path).is_file()]
    if absent:
        raise ArtifactError(
            f"{len(absent)} slides of the embedded cohort are not drawn, e.g. {absent[0]}; run "
            f"`python -m pipeline cohort chunk`, or the whole workflow, from the same folder"
        )


def _facts(
    cfg: CohortConfig, rows: Sequence[SlideRow], known: Mapping[str, str], tasks: Mapping[str, Any]
) -> CohortFacts:
    """What the report says of the cohort before any slide is read."""
    per_case = Counter(r.case_id for r in rows)
    missing = [r.slide_id for r in rows if known[r.slide_id].startswith("missing")]
    made = cfg.source == "synthetic"
    return CohortFacts(
        name=cfg.name,
        source=cfg.source,
        counts=CohortCounts(
            slides=len(rows),
            cases=len(per_case),
            sites=len({r.site for r in rows if r.site}),
            cases_with_several_slides=sum(n > 1 for n in per_case.values()),
            slides_without_path=sum(not r.path for r in rows),
            slides_missing=len(missing),
        ),
        slides_missing=missing[:MAX_SHOWN],
        label_columns=list(rows[0].labels),
        tasks={name: summary(rows, task) for name, task in tasks.items()},
        oracle=oracle(embedded.cases(cfg.synthetic), tasks) if made else {},
        planted_faults={
            s.slide_id: s.role
            for s in (embedded.slides(cfg.synthetic) if made else ())
            if s.role != "good"
        },
    )
