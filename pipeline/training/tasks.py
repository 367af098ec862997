"""Task heads: what the outputs mean, the loss, the validation metric and the predictions.

A head is fitted on the training part of a fold (bin edges, class weights, target scale), is frozen
from then on and goes into the fold's meta.json, from which it can be rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.aggregators.network import TaskType
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.labels import Labels, Task
from pipeline.training import multitask, survival
from pipeline.training.classification import ClassificationHead
from pipeline.training.head import Head
from pipeline.training.multitask import AuxiliaryTask, MultiHead
from pipeline.training.regression import RegressionHead


def fit_head(
    task: Task, labels: Labels, train: np.ndarray, auxiliary: Sequence[AuxiliaryTask] = ()
) -> Head:
    """The head of a task, fitted on the training rows of `labels` alone.

    Args:
        task: the task.
        labels: of all cases.
        train: rows to fit on.
        auxiliary: endpoints to learn with it.

    Raises:
        UserError: the training part cannot be learned from (no event, one class).
    """
    head = _fit_one(task, labels, train)
    if not auxiliary:
        return head
    width = head.targets(labels).shape[1]
    return multitask.with_auxiliary(head, width, auxiliary, train, _fit_one)


def _fit_one(task: Task, labels: Labels, train: np.ndarray) -> Head:
    if isinstance(task, SurvivalTask):
        return survival.fit(task, labels, train)
    if isinstance(task, ClassificationTask):
        return ClassificationHead.fit(task, labels, train)
    assert isinstance(task, RegressionTask)
    return RegressionHead.fit(task, labels, train)


OTHERS: dict[str, Callable[[Mapping[str, Any]], Head]] = {
    ClassificationHead.kind: ClassificationHead.from_facts,
    RegressionHead.kind: RegressionHead.from_facts,
}


def from_facts(facts: Mapping[str, Any]) -> Head:
    """The head that a meta.json describes."""
    if "auxiliary" in facts:
        return multitask.from_facts(facts, _one_from_facts)
    return _one_from_facts(facts)


def _one_from_facts(facts: Mapping[str, Any]) -> Head:
    return OTHERS.get(facts["kind"], survival.from_facts)(facts)


def own(head: Head, out: Any, y: Any) -> tuple[Head, Any, Any]:
    """The task's own head with its part of outputs and targets, without the auxiliary ones.

    Args:
        head: of the task, with or without auxiliary endpoints.
        out: (n, C), outputs.
        y: (n, columns), targets.
    """
    return (head.main, *head.own(out, y)) if isinstance(head, MultiHead) else (head, out, y)


def main_of(head: Head) -> Head:
    """The head of the task's own endpoint."""
    return head.main if isinstance(head, MultiHead) else head


def type_of(head: Head) -> TaskType:
    """The type of the task that a head of one endpoint belongs to."""
    if isinstance(head, ClassificationHead):
        return "classification"
    return "regression" if isinstance(head, RegressionHead) else "survival"


def cutoffs(task: Task, head: Head, out: np.ndarray) -> dict[str, float | list[float]]:
    """Risk cut-offs of the training part, for Kaplan-Meier groups; empty without a risk.

    Args:
        task: the task.
        head: of it.
        out: float32 (n, C), outputs for training cases.
    """
    if not isinstance(task, SurvivalTask):
        return {}
    risk = head.score(out)
    tertiles = np.quantile(risk, [1 / 3, 2 / 3])
    return {"median": float(np.median(risk)), "tertiles": [float(v) for v in tertiles]}
