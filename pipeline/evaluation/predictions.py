"""The predictions that training left, read and held against the folds and the labels.

What is believed about a table is checked here once: it covers every fold, no case stands in a part
where the folds do not have it, and it was made from today's labels.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.tasks import ClassificationTask, SurvivalTask
from pipeline.contracts.folds import PARTS, Fold
from pipeline.contracts.labels import Labels, Task, class_name
from pipeline.contracts.model_meta import ModelMeta, read_metas
from pipeline.errors import ArtifactError
from pipeline.files.parquet import read_table

KEYS = ["seed", "fold", "split", "case_id"]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """One model's predictions of one task.

    Attributes:
        name: the model.
        table: one row per seed, fold, part and case: `KEYS` and `columns`; NaN where not finite.
        columns: risk, or a probability a class, or a value a target.
        survival: names of the columns with predicted survival at the bin edges; may be empty.
        edges: (seed, fold) -> the bin edges, in the task's unit.
        metas: (seed, fold) -> what its training wrote; empty for predictions from elsewhere.
        n_not_finite: test rows whose prediction is NaN or infinite.
    """

    name: str
    table: pd.DataFrame
    columns: tuple[str, ...]
    survival: tuple[str, ...]
    edges: dict[tuple[int, int], tuple[float, ...]]
    metas: dict[tuple[int, int], ModelMeta]
    n_not_finite: int

    @property
    def meta(self) -> ModelMeta | None:
        """Of the first training."""
        return next(iter(self.metas.values()), None)


def value_columns(task: Task, labels: Labels) -> tuple[str, ...]:
    """The columns that hold a task's predictions."""
    if isinstance(task, SurvivalTask):
        return ("risk",)
    if isinstance(task, ClassificationTask):
        return tuple(f"prob_{name}" for name in labels.classes)
    return tuple(f"pred_{target}" for target in task.targets)


def read_predictions(
    root: Path,
    task_name: str,
    task: Task,
    model: str,
    labels: Labels,
    folds: Sequence[Fold],
    auxiliary: str = "",
    trained: Path | None = None,
) -> Predictions:
    """Read `models/<task>/<model>/predictions.parquet`, or what the model says of another endpoint.

    Args:
        root: the results folder.
        task_name: the task that the model was trained for.
        task: the task whose predictions are read.
        model: the model's name.
        labels: labels of all cases that the folds know.
        folds: the folds that it was trained on.
        auxiliary: the name of `task`, where it is an auxiliary one of the model.
        trained: results folder in which the model was trained; None: the same.

    Raises:
        ArtifactError: the table is missing, damaged, or does not fit the folds or the labels.
    """
    folder = root / "models" / task_name / model
    made = (trained or root) / "models" / task_name / model
    path = (
        folder / "auxiliary" / f"{auxiliary}.parquet"
        if auxiliary
        else folder / "predictions.parquet"
    )
    table = read_table(path)
    columns = value_columns(task, labels)
    absent = [c for c in (*KEYS, *columns) if c not in table.columns]
    if absent:
        raise ArtifactError(
            f"{path}: no column {', '.join(absent)}; the task has changed: train the model again"
        )
    table = table.assign(case_id=table["case_id"].astype(str), split=table["split"].astype(str))
    _check_rows(path, table, folds)
    _check_labels(path, table, task, labels)
    survival = tuple(
        sorted((c for c in table.columns if re.fullmatch(r"surv_\d+", c)), key=lambda c: int(c[5:]))
    )
    values = table[list(columns)].to_numpy(dtype=np.float64)
    bad = ~np.isfinite(values).all(axis=1)
    finite = pd.DataFrame(np.where(bad[:, None], np.nan, values), table.index, list(columns))
    kept = pd.concat([table[[*KEYS, *survival]], finite], axis=1)
    fits = set(zip(table["seed"], table["fold"], strict=True))
    metas = {
        (meta.seed, meta.fold): meta
        for meta in sorted(read_metas(made), key=lambda meta: (meta.seed, meta.fold))
        if (meta.seed, meta.fold) in fits
    }
    return Predictions(
        name=model,
        table=kept,
        columns=columns,
        survival=survival,
        edges={key: _edges(meta.head, auxiliary) for key, meta in metas.items()},
        metas=metas,
        n_not_finite=int(bad[(table["split"] == "test").to_numpy()].sum()),
    )


def _check_rows(path: Path, table: pd.DataFrame, folds: Sequence[Fold]) -> None:
    again = table.duplicated(KEYS)
    if again.any():
        row = table.loc[again, KEYS].iloc[0].to_dict()
        raise ArtifactError(f"{path}: {row} occurs twice; train the model again")
    rows = [(f.index, part, case) for f in folds for part in PARTS for case in f.part(part)]
    known = pd.DataFrame(rows, columns=["fold", "split", "case_id"])
    joined = table.merge(known, on=["fold", "split", "case_id"], how="left", indicator=True)
    stray = joined[joined["_merge"] == "left_only"]
    if len(stray):
        fold, split, case = (stray[key].iloc[0] for key in ("fold", "split", "case_id"))
        raise ArtifactError(
            f"{path}: {len(stray)} row(s) are not of today's folds, such as case {case} in "
            f"{split} of fold {fold}; train the model again"
        )
    trained = set(
        table.loc[table["split"] == "train", ["seed", "fold"]].itertuples(index=False, name=None)
    )
    for seed in sorted(set(table["seed"])):
        lacking = [f.index for f in folds if (seed, f.index) not in trained]
        if lacking:
            raise ArtifactError(
                f"{path}: seed {seed} has no predictions of fold {lacking[0]}; train it again"
            )


def _check_labels(path: Path, table: pd.DataFrame, task: Task, labels: Labels) -> None:
    row_of = {case: i for i, case in enumerate(labels.cases)}
    rows = np.array([row_of[case] for case in table["case_id"]], dtype=np.int64)
    if labels.time is not None and labels.event is not None:
        same = np.isclose(table["time"].to_numpy(float), labels.time[rows], rtol=1e-4, atol=1e-4)
        same &= table["event"].to_numpy(float) == labels.event[rows]
    elif labels.label is not None:
        names = np.array(labels.classes, dtype=object)[labels.label[rows]]
        same = np.array([class_name(v) for v in table["label"]], dtype=object) == names
    else:
        assert labels.targets is not None and not isinstance(task, SurvivalTask)
        wanted = [f"true_{c.removeprefix('pred_')}" for c in value_columns(task, labels)]
        given = table[wanted].to_numpy(float)
        scale = np.maximum(np.abs(labels.targets).max(axis=0), 1e-12)
        same = (np.abs(given - labels.targets[rows]) <= 1e-4 * scale).all(axis=1)
    if not same.all():
        case = table.loc[~same, "case_id"].iloc[0]
        raise ArtifactError(
            f"{path}: made from other labels than cases.parquet has now, such as those of {case}; "
            f"train the model again"
        )


def _edges(head: dict[str, Any], auxiliary: str) -> tuple[float, ...]:
    """The bin edges in a head's facts; empty where it has none."""
    if auxiliary:
        head = next((o["head"] for o in head.get("auxiliary", ()) if o["name"] == auxiliary), {})
    return tuple(head.get("bin_edges", ()))
