"""Several endpoints in one model: the task's own, and auxiliary ones.

One trunk, one block of outputs per endpoint. The auxiliary endpoints lend their labels to the
training of the trunk (in the training part alone, like all labels); what is validated and chosen by
is the task's own endpoint. What the model says of the auxiliary ones is written into a file of its
own for each.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.contracts.labels import Labels, Task
from pipeline.training.head import Head

# Raised when what is learned with auxiliary endpoints changes. 1: the first.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class AuxiliaryTask:
    """An auxiliary endpoint and its labels.

    Attributes:
        name: the task's name.
        task: the task.
        weight: of its loss; the own endpoint's is 1.
        labels: rows as the own endpoint's; where `known` is False they mean nothing.
        known: bool (n,).
    """

    name: str
    task: Task
    weight: float
    labels: Labels
    known: np.ndarray


@dataclasses.dataclass(frozen=True)
class AuxiliaryHead:
    """An auxiliary endpoint as a head knows it: its own head, weight, and target columns."""

    name: str
    weight: float
    head: Head
    width: int


@dataclasses.dataclass(frozen=True)
class MultiHead:
    """The own endpoint's head with auxiliary ones. Targets: own columns, then each auxiliary
    endpoint's, NaN where a case has no such label.

    Attributes:
        main: the own endpoint's head.
        width: its target columns.
        auxiliary: the auxiliary endpoints.
        tasks: their labels; empty when the head was rebuilt from a file.
    """

    main: Head
    width: int
    auxiliary: tuple[AuxiliaryHead, ...]
    tasks: tuple[AuxiliaryTask, ...] = ()

    @property
    def kind(self) -> str:
        return self.main.kind

    @property
    def needed(self) -> int | None:
        return self.main.needed

    @property
    def outputs(self) -> int:
        return self.main.outputs + sum(one.head.outputs for one in self.auxiliary)

    def targets(self, labels: Labels) -> np.ndarray:
        blocks = [self.main.targets(labels)]
        for one, task in zip(self.auxiliary, self.tasks, strict=True):
            block = one.head.targets(task.labels)
            blocks.append(np.where(task.known[:, None], block, np.float32(np.nan)))
        return np.concatenate(blocks, axis=1)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Own loss plus the weighted auxiliary losses on the cases that have their label.

        An auxiliary endpoint of which a batch says nothing (no label, or no event where its loss
        needs one) adds nothing to that batch.
        """
        total = self.main.loss(*self.own(out, y))
        for other, outs, aims in self._blocks(out, y):
            known = ~aims.isnan().any(dim=1)
            if not bool(known.any()):
                continue
            aims = aims[known]
            if other.head.needed is not None:
                strata = other.head.strata(aims.detach().cpu().numpy())
                if other.head.needed not in strata:
                    continue
            total = total + other.weight * other.head.loss(outs[known], aims)
        return total

    def own(self, out: Any, y: Any) -> tuple[Any, Any]:
        """The own endpoint's outputs and targets."""
        return out[:, : self.main.outputs], y[:, : self.width]

    @property
    def metric_name(self) -> str:
        return self.main.metric_name

    def metric(self, out: np.ndarray, y: np.ndarray) -> float:
        return self.main.metric(*self.own(out, y))

    def strata(self, y: np.ndarray) -> np.ndarray:
        return self.main.strata(y[:, : self.width])

    def classes_of(self, y: Tensor) -> Tensor | None:
        return self.main.classes_of(y[:, : self.width])

    def score(self, out: np.ndarray) -> np.ndarray:
        return self.main.score(out[:, : self.main.outputs])

    def lead(self, out: Tensor) -> Tensor:
        return self.main.lead(out[:, : self.main.outputs])

    def columns(self, out: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
        return self.main.columns(*self.own(out, y))

    def auxiliary_columns(
        self, out: np.ndarray, y: np.ndarray
    ) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Of each auxiliary endpoint: which cases have its label, bool (n,), and their columns."""
        found = {}
        for other, outs, aims in self._blocks(out, y):
            known = ~np.isnan(aims).any(axis=1)
            found[other.name] = known, other.head.columns(outs[known], aims[known])
        return found

    def facts(self) -> dict[str, Any]:
        auxiliary = [
            {"name": o.name, "weight": o.weight, "width": o.width, "head": o.head.facts()}
            for o in self.auxiliary
        ]
        return {**self.main.facts(), "width": self.width, "auxiliary": auxiliary}

    def places(self) -> Iterator[tuple[str, Head, slice, slice]]:
        """The own endpoint and each auxiliary one: name, head, and where its outputs and target
        columns stand."""
        yield "", self.main, slice(0, self.main.outputs), slice(0, self.width)
        output, column = self.main.outputs, self.width
        for other in self.auxiliary:
            outputs = slice(output, output + other.head.outputs)
            columns = slice(column, column + other.width)
            yield other.name, other.head, outputs, columns
            output, column = outputs.stop, columns.stop

    def _blocks(self, out: Any, y: Any) -> Iterator[tuple[AuxiliaryHead, Any, Any]]:
        """Each auxiliary endpoint with its outputs and targets."""
        places = itertools.islice(self.places(), 1, None)
        for other, (_, _, outputs, columns) in zip(self.auxiliary, places, strict=True):
            yield other, out[:, outputs], y[:, columns]


def align(labels: Labels, cases: Sequence[str]) -> tuple[Labels, np.ndarray]:
    """An endpoint's labels in the order of `cases`, and bool (n,) where it has one.

    Cases without a label get the first row's, which nothing looks at.
    """
    place = {case: i for i, case in enumerate(labels.cases)}
    known = np.array([case in place for case in cases], dtype=bool)
    rows = np.array([place.get(case, 0) for case in cases], dtype=np.int64)
    return labels.take(rows), known


def with_auxiliary(
    main: Head,
    width: int,
    tasks: Sequence[AuxiliaryTask],
    train: np.ndarray,
    fit: Callable[[Task, Labels, np.ndarray], Head],
) -> MultiHead:
    """A head for the own endpoint and auxiliary ones, fitted on the training rows.

    Args:
        main: the own endpoint's head.
        width: its target columns.
        tasks: the auxiliary endpoints.
        train: training rows; each auxiliary endpoint is fitted on those that have its label.
        fit: makes a single endpoint's head of task, labels and rows.

    Raises:
        UserError: an auxiliary endpoint cannot be learned from the training part.
    """
    auxiliary = []
    for one in tasks:
        head = fit(one.task, one.labels, train[one.known[train]])
        auxiliary.append(
            AuxiliaryHead(one.name, one.weight, head, head.targets(one.labels).shape[1])
        )
    return MultiHead(main, width, tuple(auxiliary), tuple(tasks))


def from_facts(facts: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Head]) -> MultiHead:
    """The head that a meta.json describes; `build` makes one endpoint's head from its facts."""
    auxiliary = tuple(
        AuxiliaryHead(o["name"], o["weight"], build(o["head"]), o["width"])
        for o in facts["auxiliary"]
    )
    return MultiHead(build(facts), facts["width"], auxiliary)
