"""A task's evaluation folder, opened and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.contracts.evaluation_summary import EvaluationSummary, read_evaluation_summary
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json
from pipeline.files.parquet import read_table
from pipeline.report.tables import metrics

_METRICS = (
    "model", "metric", "value", "low", "high", "n", "n_events", "fold_mean", "fold_std",
    "seed_mean", "seed_std", "n_seeds",
)  # fmt: skip
_COMPARISONS = (
    "student", "other", "metric", "difference", "low", "high", "p_value", "p_holm", "verdict",
    "test", "n", "p_folds",
)  # fmt: skip
_BEYOND = (
    "metric", "difference", "low", "high", "p_value", "verdict", "with_value", "other_value",
    "likelihood_ratio", "p_likelihood",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What the evaluation stage left of a task.

    Attributes:
        task: its name.
        summary: what was found.
        curves: curves.json.
        metrics, comparisons: the tables.
        primary: the metric that decides.
        oracle: metric -> what is reachable, where the hidden state is known; else empty.
        average: metric -> what the training part's average outcome reaches, errors alone.
        order: models by the primary metric, best first.
        beyond: the student with covariates against these alone, by the primary metric; None where
            the cohort has none.
    """

    task: str
    summary: EvaluationSummary
    curves: Mapping[str, Any]
    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    primary: str
    oracle: Mapping[str, float]
    average: Mapping[str, float]
    order: tuple[str, ...]
    beyond: Mapping[str, Any] | None = None

    @property
    def student(self) -> str:
        """The model that the others are compared with."""
        return self.summary.student

    @property
    def metric_names(self) -> list[str]:
        """All metrics, in the order of the table."""
        return [str(m) for m in self.metrics["metric"].unique()]

    def row(self, model: str, metric: str | None = None) -> dict[str, Any]:
        """A model's row for a metric (the primary one by default); empty where there is none."""
        wanted = (self.metrics["model"] == model) & (
            self.metrics["metric"] == (metric or self.primary)
        )
        rows = self.metrics[wanted].to_dict("records")
        return {str(k): v for k, v in rows[0].items()} if rows else {}

    def comparison(self, other: str) -> dict[str, Any] | None:
        """The paired comparison of the student with `other` by the primary metric."""
        wanted = (self.comparisons["other"] == other) & (self.comparisons["metric"] == self.primary)
        rows = self.comparisons[wanted].to_dict("records")
        return {str(k): v for k, v in rows[0].items()} if rows else None


def read_evaluation(root: Path, task: str, student: str) -> Evaluation:
    """Open a task's evaluation.

    Args:
        root: the cohort's results folder.
        task: the task's name.
        student: the student's name.

    Raises:
        ArtifactError: a file is missing or damaged, or lacks a column or the student.
    """
    folder = root / "evaluation" / task
    summary = read_evaluation_summary(folder)
    table = _table(folder / "metrics.parquet", _METRICS)
    primary = summary.primary_metric
    ranked = table[table["metric"] == primary].sort_values(
        ["value", "model"], ascending=[not metrics.describe(primary).higher, True]
    )
    models = [str(m) for m in ranked["model"]]
    if student not in models:
        raise ArtifactError(
            f"{folder / 'metrics.parquet'}: no {primary} of the student `{student}`; delete it and "
            f"run `evaluation` again"
        )
    return Evaluation(
        task=task,
        summary=summary,
        curves=read_json(folder / "curves.json"),
        metrics=table,
        comparisons=_table(folder / "comparisons.parquet", _COMPARISONS),
        primary=primary,
        oracle=summary.oracle_metrics,
        average={k: v for k, v in summary.reference_metrics.items() if v is not None},
        order=tuple(models),
        beyond=_beyond(folder / "covariates.parquet", primary),
    )


def _beyond(path: Path, primary: str) -> Mapping[str, Any] | None:
    """The row of the primary metric; None where the table is not there."""
    if not path.is_file():
        return None
    table = _table(path, _BEYOND)
    rows = table[table["metric"] == primary].to_dict("records")
    return {str(key): value for key, value in rows[0].items()} if rows else None


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = read_table(path)
    absent = [c for c in columns if c not in table.columns]
    if absent:
        raise ArtifactError(
            f"{path}: no column {', '.join(absent)}; delete it and run `evaluation` again"
        )
    return table
