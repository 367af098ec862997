"""Models that were trained elsewhere, measured on a cohort that had no part in it.

A case's prediction is the mean over the folds' models. Risks come to one scale, and risk groups are
cut, by each fold's own training cases; the baseline hazard is theirs, too. The models are taken as
they are, so that what decides between two of them is a paired bootstrap over the cases.

Writes the files of `evaluation/<task>/` that the evaluation of a training cohort writes, but for
those that speak of trainings (`nested`, `attribution`, `auxiliary`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.external import ExternalJob
from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.evaluation_summary import read_evaluation_summary
from pipeline.contracts.folds import Fold, read_folds
from pipeline.contracts.folds_summary import read_folds_summary
from pipeline.contracts.labels import Labels, Task
from pipeline.contracts.model_meta import read_metas
from pipeline.errors import ConfigError, nearest
from pipeline.evaluation.bootstrap import resample_weights
from pipeline.evaluation.hazards import last_edge
from pipeline.evaluation.load_inputs import known_labels, pool_of
from pipeline.evaluation.metrics import Bench
from pipeline.evaluation.predictions import Predictions, read_predictions
from pipeline.evaluation.stage import line_up, publish
from pipeline.evaluation.survival_metrics import TimePoints, time_points
from pipeline.external.predictions import external_labels
from pipeline.files.artifacts import sweep
from pipeline.files.parquet import read_table

# Raised when the measures of external cohorts change. 1: the first.
VERSION = 1


def run(*, job: ExternalJob, root: Path, task: str) -> None:
    """Measure and compare the models of one task.

    Args:
        job: the job.
        root: results folder of the external cohort.
        task: the task's name.

    Raises:
        ConfigError: the student is not among the models.
        ArtifactError: predictions are missing, or do not fit the labels.
    """
    cfg = job.evaluation
    if cfg.student not in job.applied:
        raise ConfigError(
            f"evaluation.student is `{cfg.student}`, which is none of the models that are applied"
            f"{nearest(cfg.student, job.applied)}; set it, or add it to external.models"
        )
    sweep(root / "evaluation" / task)
    trained = Path(job.external.trained)
    first = read_metas(trained / "models" / task / cfg.student)[0]
    spec = spelled_out(job.task, read_table(root / "cases.parquet").columns)
    own = external_labels(root, task, job.task, first)
    splits = read_folds(trained, task)
    before = known_labels(read_table(trained / "cases.parquet"), task, spec, splits)
    both = joined(before, own)
    folds = [Fold(one.index, one.train, (), own.cases) for one in splits]
    predictions = [
        read_predictions(root, task, spec, model, both, folds, trained=trained)
        for model in job.applied
    ]
    points = _points(cfg, spec, own, predictions, trained, task)
    pools = [pool_of(model, spec, both, points) for model in predictions]
    weights = resample_weights(len(own.cases), cfg.bootstraps, cfg.seed)
    bench = Bench(spec, own, weights, points, folds, None, fixed=True)
    # Imported folds that test on validation cases do so within the training cohort.
    made = read_folds_summary(trained, task)
    split = dataclasses.replace(made, labelled="test", tests="external")
    publish(
        cfg=cfg,
        task_name=task,
        bench=bench,
        field=line_up(predictions, pools, bench),
        predictions=predictions,
        plain=(),
        split=split,
        labels=both,
        root=root,
    )


def joined(first: Labels, second: Labels) -> Labels:
    """The labels of two cohorts that share no case.

    Args:
        first, second: of the same task.
    """

    def both(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
        return None if one is None or other is None else np.concatenate([one, other])

    return dataclasses.replace(
        first,
        cases=(*first.cases, *second.cases),
        time=both(first.time, second.time),
        event=both(first.event, second.event),
        label=both(first.label, second.label),
        targets=both(first.targets, second.targets),
    )


def _points(
    cfg: EvaluationConfig,
    task: Task,
    labels: Labels,
    predictions: Sequence[Predictions],
    trained: Path,
    name: str,
) -> TimePoints | None:
    """Times of the cohort, at the horizons of the training cohort's evaluation."""
    if not isinstance(task, SurvivalTask):
        return None
    assert labels.time is not None and labels.event is not None
    horizons = cfg.horizons or tuple(
        read_evaluation_summary(trained / "evaluation" / name).horizons
    )
    return time_points(labels.time, labels.event, horizons, last_edge(list(predictions)))
