"""`evaluation.json`: what a task's evaluation found, and what a reader must know to believe it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from pipeline.files.typed_json import read_typed, write_typed

FILE = "evaluation.json"
Row = dict[str, str | bool | int | float | None]  # of a table of the evaluation, by column


@dataclasses.dataclass(frozen=True)
class Single:
    """A single-teacher model that was the best of its kind.

    Attributes:
        model: its name.
        value, low, high: the primary metric on the test parts; None where undefined.
        validation_value: mean over the validation parts.
        comparison: of the student with it; None where the student is this model.
        note: how it was chosen.
    """

    model: str
    value: float | None
    low: float | None
    high: float | None
    validation_value: float | None
    comparison: Row | None
    note: str


@dataclasses.dataclass(frozen=True)
class BestSingle:
    """The best single teacher, chosen in two ways."""

    on_test: Single
    on_validation: Single


@dataclasses.dataclass(frozen=True)
class EvaluationSummary:
    """A task's evaluation.

    Attributes:
        task, type: name and type of the task.
        labelled: whether the numbers are results on a `test` or a `validation`.
        note: what a reader must know first, or ''.
        primary_metric, higher_is_better: the metric that decides.
        student: the model that the others are compared with.
        n_cases, n_events: measured cases; None events where there is no event.
        classes: class -> cases; None without classes.
        unit, horizons, tau: of a survival task's time; None or empty for others.
        k, tests, seeds: folds, how their test parts lie (`partition`, …), and seeds.
        bootstraps, confidence: of the intervals.
        models: a row for each model by the primary metric, the best first, with `n_parameters`.
        comparisons: a row for each other model by the primary metric.
        best_single: None without single-teacher models.
        average_of: the models whose predictions `average` is the mean of.
        oracle, oracle_metrics: what the hidden state of an embedded cohort allows, by the primary
            metric and by all.
        reference_metrics: errors of the training part's average.
        problems: what limits the numbers, a sentence each.
    """

    task: str
    type: str
    labelled: Literal["test", "validation"]
    note: str
    primary_metric: str
    higher_is_better: bool
    student: str
    n_cases: int
    n_events: int | None
    classes: dict[str, int] | None
    unit: str | None
    horizons: list[float]
    tau: float | None
    k: int
    tests: str
    seeds: list[int]
    bootstraps: int
    confidence: float
    models: list[Row]
    comparisons: list[Row]
    best_single: BestSingle | None
    average_of: list[str]
    oracle: float | None
    oracle_metrics: dict[str, float]
    reference_metrics: dict[str, float | None]
    problems: list[str]


def write_evaluation_summary(folder: Path, summary: EvaluationSummary) -> None:
    """Write it into `evaluation/<task>/`."""
    write_typed(folder / FILE, summary)


def read_evaluation_summary(folder: Path) -> EvaluationSummary:
    """Read it from `evaluation/<task>/`.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(folder / FILE, EvaluationSummary)
