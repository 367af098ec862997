"""Which slides an encoder that is made here may see: all, those of a fold's training cases, or
those of cases without any label. What the labels are is never looked at.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from pipeline.contracts.folds import read_folds
from pipeline.errors import UserError
from pipeline.files.parquet import read_table
from pipeline.tile_training.slides import TiledSlide, tiled_slides

REMEDY = {
    "all": "no slide has tiles. Look at the report's ledger for the reasons",
    "training": "no slide of the fold's training cases has tiles. Look at the ledger for the "
    "reasons",
    "separate": "every case has a label. Add slides of other patients to the sheet, with empty "
    "labels; or learn from each fold's training cases (`pool: training`), or from all (`pool: "
    "all`), whose numbers are then called transductive",
}


def pooled(
    root: Path, pool: str, *, key: str, labels: Sequence[str], task: str, fold: int
) -> list[TiledSlide]:
    """The slides of a pool.

    Args:
        root: the results folder.
        pool: `all`, `separate` or `training`.
        key: where the pool stands in the config, for messages.
        labels: columns, or patterns of columns, that hold labels, for `separate`.
        task: whose fold is meant, for `training`; empty of an encoder that serves all folds since
            it learns nothing: it sees all slides.
        fold: its number.

    Raises:
        UserError: there are none.
        ArtifactError: a tiles file or the folds are missing or damaged.
    """
    slides = tiled_slides(root)
    if pool == "separate":
        labelled = _labelled(root, labels)
        slides = [slide for slide in slides if slide.case_id not in labelled]
    elif pool == "training" and task:
        folds = {one.index: one for one in read_folds(root, task)}
        cases = set(folds[fold].train)
        slides = [slide for slide in slides if slide.case_id in cases]
    if not slides:
        raise UserError(f"{key}: {pool}, but {REMEDY[pool]}")
    return slides


def _labelled(root: Path, columns: Sequence[str]) -> set[str]:
    """Cases with any label at all, in columns of these names or patterns."""
    table = read_table(root / "slides.parquet")
    named = [c for c in table.columns if any(fnmatch.fnmatchcase(c, p) for p in columns)]
    given = table[named].astype(object)
    blank = given.isna() | (given.astype(str).apply(lambda c: c.str.strip()) == "")
    return set(table.loc[~blank.all(axis=1), "case_id"].astype(str))
