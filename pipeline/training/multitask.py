"""Several endpoints in one model: the task's own, and others that are learned beside it.

One trunk, one block of outputs per endpoint. The others lend their labels to the training of the
trunk (in the training part alone, like all labels); what is validated and chosen by is the task's
own endpoint. What the model says of the others is written beside its predictions.
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
class Beside:
    """Another endpoint's labels.

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
class Other:
    """Another endpoint as a head knows it: its own head, the weight, and its target columns."""

    name: str
    weight: float
    head: Head
    width: int


@dataclasses.dataclass(frozen=True)
class MultiHead:
    """The own endpoint's head with others beside it. Targets: own columns, then each other's, NaN
    where a case has no such label.

    Attributes:
        main: the own endpoint's head.
        width: its target columns.
        others: the other endpoints.
        beside: their labels; empty when the head was rebuilt from a file.
    """

    main: Head
    width: int
    others: tuple[Other, ...]
    beside: tuple[Beside, ...] = ()

    @property
    def kind(self) -> str:
        return self.main.kind

    @property
    def needed(self) -> int | None:
        return self.main.needed

    @property
    def one_question(self) -> bool:
        return False

    @property
    def outputs(self) -> int:
        return self.main.outputs + sum(other.head.outputs for other in self.others)

    def targets(self, labels: Labels) -> np.ndarray:
        blocks = [self.main.targets(labels)]
        for other, beside in zip(self.others, self.beside, strict=True):
            block = other.head.targets(beside.labels)
            blocks.append(np.where(beside.known[:, None], block, np.float32(np.nan)))
        return np.concatenate(blocks, axis=1)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Own loss plus the weighted losses of the others on the cases that have their label.

        Another endpoint of which a batch says nothing (no label, or no event where its loss needs
        one) adds nothing to that batch.
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

    def null(self, y: np.ndarray) -> np.ndarray:
        blocks = [self.main.null(y[:, : self.width])]
        for other, _, aims in self._blocks(np.zeros((len(y), self.outputs)), y):
            blocks.append(other.head.null(aims[~np.isnan(aims).any(axis=1)]))
        return np.concatenate(blocks)

    def evidence(self, out: np.ndarray, y: np.ndarray) -> float:
        return self.main.evidence(*self.own(out, y))

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

    def columns_beside(
        self, out: np.ndarray, y: np.ndarray
    ) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
        """Of each other endpoint: which cases have its label, bool (n,), and their columns."""
        found = {}
        for other, outs, aims in self._blocks(out, y):
            known = ~np.isnan(aims).any(axis=1)
            found[other.name] = known, other.head.columns(outs[known], aims[known])
        return found

    def facts(self) -> dict[str, Any]:
        others = [
            {"name": o.name, "weight": o.weight, "width": o.width, "head": o.head.facts()}
            for o in self.others
        ]
        return {**self.main.facts(), "width": self.width, "beside": others}

    def places(self) -> Iterator[tuple[str, Head, slice, slice]]:
        """The own endpoint and each other one: name, head, and where its outputs and target columns
        stand."""
        yield "", self.main, slice(0, self.main.outputs), slice(0, self.width)
        output, column = self.main.outputs, self.width
        for other in self.others:
            outputs = slice(output, output + other.head.outputs)
            columns = slice(column, column + other.width)
            yield other.name, other.head, outputs, columns
            output, column = outputs.stop, columns.stop

    def _blocks(self, out: Any, y: Any) -> Iterator[tuple[Other, Any, Any]]:
        """Each other endpoint with its outputs and targets."""
        places = itertools.islice(self.places(), 1, None)
        for other, (_, _, outputs, columns) in zip(self.others, places, strict=True):
            yield other, out[:, outputs], y[:, columns]


def align(labels: Labels, cases: Sequence[str]) -> tuple[Labels, np.ndarray]:
    """An endpoint's labels in the order of `cases`, and bool (n,) where it has one.

    Cases without a label get the first row's, which nothing looks at.
    """
    place = {case: i for i, case in enumerate(labels.cases)}
    known = np.array([case in place for case in cases], dtype=bool)
    rows = np.array([place.get(case, 0) for case in cases], dtype=np.int64)
    return labels.take(rows), known


def with_others(
    main: Head,
    width: int,
    beside: Sequence[Beside],
    train: np.ndarray,
    fit: Callable[[Task, Labels, np.ndarray], Head],
) -> MultiHead:
    """A head for the own endpoint and those beside it, fitted on the training rows.

    Args:
        main: the own endpoint's head.
        width: its target columns.
        beside: the other endpoints.
        train: training rows; each other endpoint is fitted on those that have its label.
        fit: makes a single endpoint's head of task, labels and rows.

    Raises:
        UserError: another endpoint cannot be learned from the training part.
    """
    others = []
    for one in beside:
        head = fit(one.task, one.labels, train[one.known[train]])
        others.append(Other(one.name, one.weight, head, head.targets(one.labels).shape[1]))
    return MultiHead(main, width, tuple(others), tuple(beside))


def from_facts(facts: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Head]) -> MultiHead:
    """The head that a meta.json describes; `build` makes one endpoint's head from its facts."""
    others = tuple(
        Other(o["name"], o["weight"], build(o["head"]), o["width"]) for o in facts["beside"]
    )
    return MultiHead(build(facts), facts["width"], others)
