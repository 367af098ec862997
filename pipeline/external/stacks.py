"""Stacks of models and covariates on a cohort that had no part in their training.

What the members say of its cases is read from `models/<task>/<member>/predictions.parquet` of the
cohort, what covariates say from its sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.contracts.covariates import Column, read_covariates, unlike
from pipeline.contracts.model_meta import ModelMeta
from pipeline.errors import ArtifactError, UserError
from pipeline.files.parquet import read_columns, read_table
from pipeline.runtime import progress
from pipeline.training.applied_stack import AppliedStack, in_common, stack_of
from pipeline.training.stacking import with_ends
from pipeline.training.tasks import from_facts


def stacked(
    root: Path, trained: Path, task: str, metas: Sequence[ModelMeta], cases: Sequence[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What each training of a stack says.

    Args:
        root: results folder of the external cohort.
        trained: results folder of the training cohort.
        task: the task's name.
        metas: trainings of the stack.
        cases: ids of the cases to predict.

    Returns:
        for each training the numbers of the cases that can be predicted, and float32 (n, C).

    Raises:
        UserError: the sheet lacks a column, or has a value that the models do not know.
        ArtifactError: a member has not predicted the cohort.
    """
    columns = _columns(root, trained, metas)
    place = {case: i for i, case in enumerate(cases)}
    found = []
    for meta in progress.counted(metas, "models"):
        stack = stack_of(meta.network, from_facts(meta.head))
        z = _members(root / "models" / task, stack, meta, place)
        rows, out = stack(z, stack.design(columns, cases))
        if len(rows) < len(cases):
            progress.say(
                f"fold {meta.fold}: {len(cases) - len(rows)} cases lack what the stack reads"
            )
        found.append((rows, out))
    return found


def _columns(root: Path, trained: Path, metas: Sequence[ModelMeta]) -> list[Column]:
    """The covariates of the cohort, each counted as in training."""
    meta = metas[0]
    names = list(meta.model["covariates"])
    numbers = {name for one in metas for name in one.network["design"]["medians"]}
    table = read_columns(root / "cases.parquet")
    absent = [name for name in names if name not in table]
    if absent:
        raise UserError(
            f"the sheet has no column `{absent[0]}`, which the model `{meta.model_name}` reads; "
            "add it, or name other models in external.models"
        )
    kinds = dict.fromkeys(names, "category") | {name: "number" for name in names if name in numbers}
    before = read_covariates(read_columns(trained / "cases.parquet"), kinds)  # type: ignore[arg-type]
    found = read_covariates(table, kinds)  # type: ignore[arg-type]
    problems = [
        problem
        for column, first in zip(found, before, strict=True)
        for problem in unlike(column, first.levels)
    ]
    if problems:
        raise UserError("\n".join(["covariates of the sheet:", *(f"  - {p}" for p in problems)]))
    return found


def _members(
    models: Path, stack: AppliedStack, meta: ModelMeta, place: Mapping[str, int]
) -> np.ndarray:
    """float64 (cases, M, C): what the members of the same fold and seed say; NaN where nothing."""
    z = np.full((len(place), len(stack.members), stack.head.outputs), np.nan)
    for m, name in enumerate(stack.members):
        table = read_table(models / name / "predictions.parquet")
        own = with_ends(table[(table["fold"] == meta.fold) & (table["seed"] == meta.seed)])
        if set(own["case_id"]) - set(place):
            raise ArtifactError(f"{models / name}: not of today's cases; apply it again")
        rows = [place[case] for case in own["case_id"]]
        z[rows, m] = in_common({c: own[c].to_numpy() for c in own.columns}, stack.head)
    return z
