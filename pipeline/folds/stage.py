"""The folds stage: who is trained on, who stops the training, who is tested, k times.

Writes `folds/<task>/`:

- `fold_<k>.csv` (case_id, split), which training and evaluation read;
- `splits_<k>.csv` and `splits_<k>_bool.csv`, the same by slide, as CLAM reads them;
- `inner_<k>.csv` (case_id, part) with `folds.inner`: what the fold may learn from in so many parts,
  for nested cross-validation;
- `folds.json`, the `FoldsSummary`: how the cases were split and what each part holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from pipeline.config.folds import FoldsConfig, FoldsJob
from pipeline.contracts.folds import (
    PARTS,
    Fold,
    check_fold,
    check_partition,
    fold_path,
    inner_path,
)
from pipeline.contracts.folds_summary import FoldCounts, FoldsSummary, folder, write_folds_summary
from pipeline.errors import UserError
from pipeline.files.artifacts import sweep, write_text
from pipeline.files.parquet import read_table, write_csv
from pipeline.folds.imported import read_folds, tests_are
from pipeline.folds.made import make_folds, make_inner
from pipeline.folds.units import Units, units

# Raised when other cases come into a fold. 1: the first.
VERSION = 1


def run(*, job: FoldsJob, root: Path, task: str) -> None:
    """Split a task's cases, or take folds from elsewhere, check them and write them.

    Args:
        job: the config, and what the task is.
        root: the results folder.
        task: the task's name.

    Raises:
        UserError: the cases cannot be split as asked, or imported folds are not sound.
    """
    cfg = job.folds
    sweep(folder(root, task))
    slides = read_table(root / "slides.parquet")
    coverage = read_table(root / "coverage.parquet")
    found = units(
        read_table(root / "cases.parquet"),
        mode=job.cases,
        group_by=cfg.group_by,
        name=task,
        task=job.task,
    )
    folds, excluded = split(found, slides, cfg)

    usable = coverage[coverage["status"] == "ok"].drop_duplicates("slide_id")
    slides_of: dict[str, list[str]] = {}
    for case, slide in sorted(zip(usable["case_id"], usable["slide_id"], strict=True)):
        slides_of.setdefault(case, []).append(slide)
    files = _write(folds, slides_of, root, task)
    summary = FoldsSummary(
        task=task,
        type=job.task.type,
        k=len(folds),
        seed=cfg.seed,
        group_by=cfg.group_by,
        inner=cfg.inner,
        mode=job.cases,
        source="made" if cfg.import_dir is None else "imported",
        labelled=folds[0].labelled,
        tests=tests_are(folds),
        n_cases=len({case for fold in folds for part in PARTS for case in fold.part(part)}),
        n_groups=len(set(found.groups)),
        excluded=excluded,
        folds=[
            FoldCounts(
                fold=fold.index,
                train=found.describe(fold.train),
                val=found.describe(fold.val),
                test=found.describe(fold.test),
            )
            for fold in folds
        ],
        files=files,
    )
    write_folds_summary(root, summary)


def split(
    found: Units, slides: pd.DataFrame, cfg: FoldsConfig
) -> tuple[list[Fold], dict[str, str]]:
    """The folds of a task, made or imported and checked, and the cases left out with reasons.

    Args:
        found: the task's cases.
        slides: the slide table, for imported folds that name slides.
        cfg: the stage's config.

    Raises:
        UserError: the cases cannot be split as asked, or imported folds are not sound.
    """
    excluded = dict(found.excluded)
    if cfg.import_dir is None:
        folds = make_folds(found, cfg)
        check_partition(folds, f"folds of {found.name}")
    else:
        imported = read_folds(
            found,
            slides,
            folder=Path(cfg.import_dir).expanduser(),
            grouped=cfg.group_by == "site",
            allow_validation_is_test=cfg.allow_validation_is_test,
        )
        folds, excluded = imported.folds, {**excluded, **imported.excluded}
    for fold in folds:
        check_fold(fold, f"fold {fold.index} of {found.name}")
        _check_strata(fold, found)
    if cfg.inner is not None:
        folds = [dataclasses.replace(f, inner=make_inner(found, f, cfg)) for f in folds]
    return folds, excluded


def _check_strata(fold: Fold, found: Units) -> None:
    """Each part has what its use needs: an event in every part, every class to learn from."""
    stratum_of = dict(zip(found.cases, found.strata, strict=True))
    for part in PARTS:
        if not fold.part(part):
            raise UserError(
                f"fold {fold.index} of the task {found.name} has no case in {part}: "
                f"{len(found.cases)} cases are too few for folds.k and folds.validation_fraction"
            )
        present = {int(stratum_of[case]) for case in fold.part(part)}
        needed: Iterable[int] = found.must
        if part == "train" and found.labels.label is not None:
            needed = range(len(found.strata_names))
        for stratum in needed:
            if stratum not in present:
                raise UserError(
                    f"fold {fold.index} of the task {found.name} has no case with "
                    f"`{found.strata_names[stratum]}` in {part} ({len(fold.part(part))} cases). "
                    f"Use fewer folds (folds.k), another folds.validation_fraction, or, with "
                    f"group_by: site, group by case"
                )


def _write(folds: list[Fold], slides_of: dict[str, list[str]], root: Path, name: str) -> list[str]:
    written = []
    for fold in folds:
        path = fold_path(root, name, fold.index)
        rows = [(case, part) for part in PARTS for case in fold.part(part)]
        write_csv(path, pd.DataFrame(rows, columns=["case_id", "split"]))
        if fold.inner:
            inner = inner_path(root, name, fold.index)
            dealt = [(case, i) for i, part in enumerate(fold.inner) for case in part]
            write_csv(inner, pd.DataFrame(dealt, columns=["case_id", "part"]))
            written.append(inner)
        columns = [[s for case in fold.part(part) for s in slides_of[case]] for part in PARTS]
        _write_clam(path.parent, fold.index, columns)
        written += [path, *(path.parent / f"splits_{fold.index}{end}.csv" for end in ("", "_bool"))]
    for stale in folder(root, name).glob("*.csv"):
        if stale not in written:
            stale.unlink()
    return [path.relative_to(root).as_posix() for path in written]


def _write_clam(folder: Path, index: int, columns: list[list[str]]) -> None:
    frame = pd.DataFrame(list(zip_longest(*columns)), columns=list(PARTS))
    write_text(folder / f"splits_{index}.csv", frame.to_csv())
    slides = sorted({slide for column in columns for slide in column})
    flags = pd.DataFrame(
        {
            part: [s in set(column) for s in slides]
            for part, column in zip(PARTS, columns, strict=True)
        },
        index=slides,
    )
    write_text(folder / f"splits_{index}_bool.csv", flags.to_csv())
