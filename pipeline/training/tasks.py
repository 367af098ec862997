"""Task heads: what the outputs mean, the loss, the validation metric and the predictions.

A head is fitted on the training part of a fold (bin edges, class weights, target scale), is frozen
from then on and goes into the fold's meta.json, from which it can be rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.labels import Labels, Task
from pipeline.training import multitask, survival
from pipeline.training.classification import ClassificationHead
from pipeline.training.multitask import Beside, MultiHead
from pipeline.training.regression import RegressionHead


class Head(Protocol):
    """What the loop needs of a task. `y` is float32 (n, columns) as `targets` makes it."""

    @property
    def kind(self) -> str:
        """What `from_facts` knows it by."""
        ...

    @property
    def metric_name(self) -> str:
        """What the validation metric is called."""
        ...

    @property
    def needed(self) -> int | None:
        """A stratum without which a batch has no loss."""
        ...

    @property
    def one_question(self) -> bool:
        """Whether all outputs ask the same of a case, such as its hazard in each bin."""
        ...

    @property
    def outputs(self) -> int:
        """Network outputs."""
        ...

    def targets(self, labels: Labels) -> np.ndarray:
        """float32 (n, columns) for all labelled cases."""
        ...

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a batch, a scalar."""
        ...

    def null(self, y: np.ndarray) -> np.ndarray:
        """float64 (outputs,): the constant prediction with the least loss."""
        ...

    def evidence(self, out: np.ndarray, y: np.ndarray) -> float:
        """Log-likelihood of the predictions, summed over cases; differences of it are compared."""
        ...

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        """Validation metric, higher is better; NaN where it is not defined."""
        ...

    def strata(self, y: np.ndarray) -> np.ndarray:
        """int64 (n,): what each batch must have its share of."""
        ...

    def classes_of(self, y: Tensor) -> Tensor | None:
        """int64 (n,) for a classification, else None."""
        ...

    def score(self, out: np.ndarray) -> np.ndarray:
        """float (n,): what cases are ranked by (risk, confidence, first target)."""
        ...

    def lead(self, out: Tensor) -> Tensor:
        """(B,): what a tile's influence is measured on: the risk, the log odds of the predicted
        class, the first target in its own unit. Differentiable."""
        ...

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        """The predictions table's columns for these cases."""
        ...

    def facts(self) -> dict[str, Any]:
        """JSON-able; `from_facts` of the same class makes the head again."""
        ...


def fit_head(task: Task, labels: Labels, train: np.ndarray, beside: Sequence[Beside] = ()) -> Head:
    """The head of a task, fitted on the training rows of `labels` alone.

    Args:
        task: the task.
        labels: of all cases.
        train: rows to fit on.
        beside: other endpoints to learn with it.

    Raises:
        UserError: the training part cannot be learned from (no event, one class).
    """
    head = _fit_one(task, labels, train)
    if not beside:
        return head
    width = head.targets(labels).shape[1]
    return multitask.with_others(head, width, beside, train, _fit_one)


def _fit_one(task: Task, labels: Labels, train: np.ndarray) -> Head:
    if isinstance(task, SurvivalTask):
        return survival.HEADS[task.loss].fit(task, labels, train)
    if isinstance(task, ClassificationTask):
        return ClassificationHead.fit(task, labels, train)
    assert isinstance(task, RegressionTask)
    return RegressionHead.fit(task, labels, train)


HEADS: dict[str, Callable[[Mapping[str, Any]], Head]] = {
    **{kind: head.from_facts for kind, head in survival.HEADS.items()},
    ClassificationHead.kind: ClassificationHead.from_facts,
    RegressionHead.kind: RegressionHead.from_facts,
}


def from_facts(facts: Mapping[str, Any]) -> Head:
    """The head that a meta.json describes."""
    if "beside" in facts:
        return multitask.from_facts(facts, _one_from_facts)
    return _one_from_facts(facts)


def _one_from_facts(facts: Mapping[str, Any]) -> Head:
    return HEADS[facts["kind"]](facts)


def own(head: Head, out: Any, y: Any) -> tuple[Head, Any, Any]:
    """The task's own head with its part of outputs and targets, without what is learned beside."""
    return (head.main, *head.own(out, y)) if isinstance(head, MultiHead) else (head, out, y)
