"""From what training left to models on a bench: labels, common scale, resamples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.folds import PARTS, Fold
from pipeline.contracts.labels import Labels, Task, read_labels
from pipeline.errors import ArtifactError
from pipeline.evaluation.bootstrap import resample_folds, resample_weights
from pipeline.evaluation.hazards import curve_table, last_edge
from pipeline.evaluation.metrics import Bench
from pipeline.evaluation.pooling import Pool, prepare
from pipeline.evaluation.predictions import Predictions
from pipeline.evaluation.survival_metrics import TimePoints, time_points
from pipeline.files.parquet import read_table


def known_labels(cases: pd.DataFrame, name: str, task: Task, folds: Sequence[Fold]) -> Labels:
    """The labels of the cases that the folds hold.

    Args:
        cases: the table of cases, with label columns.
        name: the task's name.
        task: the task.
        folds: its folds.

    Raises:
        ArtifactError: one of them has none.
    """
    labels = read_labels(cases, name, task)
    known = {case for fold in folds for part in PARTS for case in fold.part(part)}
    without = sorted(known - set(labels.cases))
    if without:
        raise ArtifactError(
            f"folds/{name}: {without[0]} has no label in cases.parquet now; run `folds` again"
        )
    return labels.take(np.array([i for i, c in enumerate(labels.cases) if c in known]))


def open_bench(
    cfg: EvaluationConfig,
    task: Task,
    labels: Labels,
    folds: Sequence[Fold],
    predictions: list[Predictions],
) -> tuple[Bench, list[Pool]]:
    """The tested cases with their resamples, and every model's predictions on a common scale.

    Args:
        cfg: the stage's config.
        task: the task.
        labels: of all cases that the folds hold.
        folds: the folds.
        predictions: of the models.
    """
    points = None
    if isinstance(task, SurvivalTask):
        assert labels.time is not None and labels.event is not None
        edge = last_edge(predictions)
        points = time_points(labels.time, labels.event, cfg.horizons, edge)
    pools = [pool_of(model, task, labels, points) for model in predictions]
    tested = {case for fold in folds for case in fold.test}
    rows = np.array([i for i, case in enumerate(labels.cases) if case in tested], dtype=np.int64)
    weights = resample_weights(len(rows), cfg.bootstraps, cfg.seed)
    kept = labels.take(rows)
    return Bench(task, kept, weights, points, folds, _redrawn(cfg, kept, folds)), pools


def lacking_teachers(root: Path) -> dict[str, list[str]]:
    """The teachers that a case lacks, by case; of the cases that lack some but not all.

    Args:
        root: the results folder.
    """
    coverage = read_table(root / "coverage.parquet")
    usable = coverage[coverage["status"] == "ok"]
    teachers = list(dict.fromkeys(coverage["teacher"]))
    had = usable.groupby("case_id")["teacher"].agg(set)
    return {
        str(case): [t for t in teachers if t not in has]
        for case, has in had.items()
        if len(has) < len(teachers)
    }


def _redrawn(cfg: EvaluationConfig, labels: Labels, folds: Sequence[Fold]) -> np.ndarray | None:
    """Resamples of folds and of their cases, where each case is tested once by one of several."""
    place = {case: i for i, case in enumerate(labels.cases)}
    tests = [np.array([place[case] for case in fold.test], dtype=np.int64) for fold in folds]
    if len(folds) < 2 or sum(map(len, tests)) > len(labels.cases):
        return None
    return resample_folds(tests, len(labels.cases), cfg.bootstraps, cfg.seed)


def pool_of(model: Predictions, task: Task, labels: Labels, points: TimePoints | None) -> Pool:
    """A model's predictions on a common scale, with survival curves where it gives them.

    Args:
        model: the predictions.
        task: the task.
        labels: of all cases that they speak of.
        points: times of a survival task; None for others.
    """
    if not isinstance(task, SurvivalTask) or points is None:
        return prepare(model)
    return prepare(model, curve_table(model, task, labels, np.array(points.grid)))
