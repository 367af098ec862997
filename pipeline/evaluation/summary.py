"""Puts together `evaluation.json` (`contracts.evaluation_summary`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.evaluation import EvaluationConfig
from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.evaluation_summary import FILE, EvaluationSummary
from pipeline.contracts.folds_summary import FoldsSummary
from pipeline.evaluation.bootstrap import p_value
from pipeline.evaluation.comparisons import LEVEL
from pipeline.evaluation.figures import jsonable
from pipeline.evaluation.metrics import PRIMARY, Bench, higher_is_better
from pipeline.evaluation.pooling import Pool
from pipeline.evaluation.predictions import Predictions
from pipeline.files.typed_json import typed

VALIDATION_NOTE = (
    "Validation and test share cases in the imported folds: models were chosen on the cases that "
    "they are measured on. Every number here is a validation result, not a test result."
)
ON_TEST_NOTE = (
    "Chosen by its own test result: the best of several is flattered, so that the student is "
    "compared with a teacher that looks better than it is."
)
ON_VALIDATION_NOTE = (
    "Chosen by the mean of its results on the validation parts, as one would choose before a test."
)


def summary(
    *,
    cfg: EvaluationConfig,
    task_name: str,
    bench: Bench,
    split: FoldsSummary,
    predictions: Sequence[Predictions],
    pools: Sequence[Pool],
    members: Sequence[str],
    plain: Sequence[str],
    metrics: pd.DataFrame,
    comparisons: pd.DataFrame,
    curves: Mapping[str, Any],
    oracle: Mapping[str, float],
    reference: Mapping[str, float],
) -> EvaluationSummary:
    """The summary of a task: numbers that are not finite are None.

    Args:
        cfg: the evaluation section.
        task_name: the task's name.
        bench: cases, labels and resamples.
        split: how the cases were split.
        predictions: of each model, as they were read.
        pools: of each model, averaged over seeds.
        members: the models that `average` is the mean of.
        plain: the simple models of one teacher.
        metrics: one row per model and metric.
        comparisons: one row per metric and other model.
        curves: what the figures show.
        oracle: metric → the best value that the hidden states allow; empty where they are not
            known.
        reference: metric → the value of a prediction without information.
    """
    task, labels = bench.task, bench.labels
    primary = PRIMARY[task.type]
    parameters = {m.name: m.meta.n_parameters for m in predictions if m.meta}
    shown = metrics[metrics["metric"] == primary].drop(
        columns=["metric", "higher_is_better", "labelled"]
    )
    models = [
        {**{str(k): v for k, v in row.items()}, "n_parameters": parameters.get(row["model"])}
        for row in shown.to_dict("records")
    ]
    against = comparisons[comparisons["metric"] == primary].drop(
        columns=["student", "metric", "higher_is_better", "labelled"]
    )
    validation = labelled_validation(split)
    found = {
        "task": task_name,
        "type": task.type,
        "labelled": split.labelled,
        "note": VALIDATION_NOTE if validation else "",
        "primary_metric": primary,
        "higher_is_better": higher_is_better(primary),
        "student": cfg.student,
        "n_cases": len(labels.cases),
        "n_events": None if labels.event is None else int(labels.event.sum()),
        "classes": None
        if labels.label is None
        else dict(
            zip(
                labels.classes,
                np.bincount(labels.label, minlength=len(labels.classes)).tolist(),
                strict=True,
            )
        ),
        "unit": task.unit if isinstance(task, SurvivalTask) else None,
        "horizons": list(bench.points.horizons) if bench.points else [],
        "tau": bench.points.tau if bench.points else None,
        "k": len(bench.folds),
        "tests": split.tests,
        "seeds": sorted({int(s) for m in predictions for s in set(m.table["seed"])}),
        "bootstraps": cfg.bootstraps,
        "confidence": cfg.confidence,
        "models": models,
        "comparisons": against.to_dict("records"),
        "best_single": best_single(bench, pools, plain, models, against),
        "average_of": list(members) if len(members) > 1 else [],
        "oracle": oracle.get(primary),
        "oracle_metrics": dict(oracle),
        "reference_metrics": dict(reference),
        "problems": [
            *problems(bench, split, predictions, pools, metrics, curves),
            *few_resamples(cfg.bootstraps, against),
        ],
    }
    return typed(jsonable(found), EvaluationSummary, f"{task_name}/{FILE}")


def labelled_validation(split: FoldsSummary) -> bool:
    return split.labelled == "validation"


def best_single(
    bench: Bench,
    pools: Sequence[Pool],
    members: Sequence[str],
    models: Sequence[Mapping[str, Any]],
    against: pd.DataFrame,
) -> dict[str, Any] | None:
    """The best single teacher, chosen in two ways, with the student's comparison to it.

    Args:
        bench: cases, labels and resamples.
        pools: of each model, averaged over seeds.
        members: the simple models of one teacher.
        models: one row per model, by the primary metric.
        against: a row an other model: the student's difference to it, by the primary metric.
    """
    if not members:
        return None
    sign = 1.0 if higher_is_better(PRIMARY[bench.task.type]) else -1.0
    on_validation = {pool.name: bench.validation(pool) for pool in pools if pool.name in members}
    on_test = {row["model"]: row["value"] for row in models if row["model"] in members}
    rows = {row["model"]: row for row in models}
    found = {}
    for how, values, note in (
        ("on_test", on_test, ON_TEST_NOTE),
        ("on_validation", on_validation, ON_VALIDATION_NOTE),
    ):
        ranked = sorted(
            values, key=lambda m: (-sign * values[m] if np.isfinite(values[m]) else np.inf, m)
        )
        row = rows[ranked[0]]
        pair = against[against["other"] == ranked[0]].to_dict("records")
        found[how] = {
            "model": ranked[0],
            **{key: row[key] for key in ("value", "low", "high")},
            "validation_value": on_validation[ranked[0]],
            "comparison": pair[0] if pair else None,
            "note": note,
        }
    return found


def few_resamples(bootstraps: int, against: pd.DataFrame) -> list[str]:
    """A sentence where no adjusted p value can be small enough, of so many comparisons."""
    drawn = int((against["test"] == "folds and cases").sum())
    if drawn * p_value(np.ones(bootstraps)) <= LEVEL:
        return []
    return [
        f"{bootstraps} resamples are too few for {drawn} comparisons: no adjusted p value can be "
        f"{LEVEL:g} or less; raise evaluation.bootstraps to {math.ceil(2 * drawn / LEVEL)}"
    ]


def problems(
    bench: Bench,
    split: FoldsSummary,
    predictions: Sequence[Predictions],
    pools: Sequence[Pool],
    metrics: pd.DataFrame,
    curves: Mapping[str, Any],
) -> list[str]:
    """What limits the numbers, one sentence each.

    Args:
        bench: cases, labels and resamples.
        split: how the cases were split.
        predictions: of each model, as they were read.
        pools: of each model, averaged over seeds.
        metrics: one row per model and metric.
        curves: what the figures show.
    """
    found = []
    if split.tests == "overlapping":
        found.append("test parts overlap: a case's predictions of several folds are averaged")
    if split.tests == "incomplete":
        found.append("some cases are never tested and take no part in the numbers")
    seeds = {m.name: tuple(sorted(set(m.table["seed"]))) for m in predictions}
    if len(set(seeds.values())) > 1:
        found.append(f"models were trained with different seeds: {seeds}")
    found += [
        f"{m.name}: {m.n_not_finite} test prediction(s) were NaN or infinite"
        for m in predictions
        if m.n_not_finite
    ]
    found += [
        f"{pool.name}: {pool.constant_fits} training(s) give all cases the same risk"
        for pool in pools
        if pool.constant_fits
    ]
    primary = metrics[metrics["metric"] == PRIMARY[bench.task.type]]
    for row in primary.to_dict("records"):
        if row["n_missing"]:
            found.append(f"{row['model']}: no prediction for {row['n_missing']} of the cases")
        if row["n_undefined"]:
            found.append(
                f"{row['model']}: {row['metric']} is undefined in {row['n_undefined']} resamples, "
                f"which its interval leaves out"
            )
    for model, panel in curves.get("kaplan_meier", {}).items():
        found += [f"{model}: {note}" for note in panel["notes"]]
    return found
