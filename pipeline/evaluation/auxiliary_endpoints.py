"""Auxiliary endpoints, which a task's models learned with their own: measured, not tested.

Nothing was chosen by them and no differences between models are tested on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.config.evaluation import EvaluationConfig
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.folds import PARTS, Fold
from pipeline.contracts.labels import Task, read_labels
from pipeline.evaluation.load_inputs import known_labels, open_bench
from pipeline.evaluation.metrics import LEAST_CASES, metric_table
from pipeline.evaluation.predictions import read_predictions


def auxiliary_table(
    cfg: EvaluationConfig,
    root: Path,
    task_name: str,
    auxiliary: Mapping[str, Task],
    models: Sequence[str],
    folds: Sequence[Fold],
    cases: pd.DataFrame,
) -> pd.DataFrame | None:
    """A row an endpoint, model and metric; None without auxiliary endpoints.

    Args:
        cfg: the stage's config.
        root: the results folder.
        task_name: the task that the models were trained for.
        auxiliary: the tasks that they learned with it.
        models: their names.
        folds: of the task; cases without another endpoint's label take no part in it.
        cases: the case table.

    Returns:
        columns endpoint, role (`auxiliary`), and those of `metrics.metric_table`.

    Raises:
        ArtifactError: predictions are missing, or do not fit the folds or the labels.
    """
    tables = []
    for name, given in auxiliary.items():
        task = spelled_out(given, cases.columns)
        has = set(read_labels(cases, name, task).cases)
        kept = [_restricted(fold, has) for fold in folds]
        if sum(len(fold.test) for fold in kept) < LEAST_CASES:
            continue
        labels = known_labels(cases, name, task, kept)
        found = [
            read_predictions(root, task_name, task, m, labels, kept, auxiliary=name) for m in models
        ]
        bench, pools = open_bench(cfg, task, labels, kept, found)
        table = metric_table([bench.measure(pool) for pool in pools], bench, cfg.confidence)
        table.insert(0, "endpoint", name)
        table.insert(1, "role", "auxiliary")
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else None


def _restricted(fold: Fold, cases: set[str]) -> Fold:
    """The fold without the cases that have no label."""
    train, val, test = (tuple(c for c in fold.part(part) if c in cases) for part in PARTS)
    return dataclasses.replace(fold, train=train, val=val, test=test, inner=())
