"""What every model of a cohort is: a batch of bags in, outputs and what explains them out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store

TaskType = Literal["survival", "classification", "regression"]


@dataclasses.dataclass(frozen=True)
class Output:
    """What a network says of B cases.

    Attributes:
        out: (B, C), the task's raw outputs.
        attention: (teacher number, level) -> (B, N_t), a tile's share of its bag; sums to 1.
        tokens: (teacher number, level) -> (B, d_model), the pooled vectors (students).
        levels: level -> (B, d_model), the student's state after each level.
        gates: level -> (B, T), the weight that a level gives each teacher; sums to 1.
        bags: for each teacher, what its aggregator returned, for instance losses.
    """

    out: Tensor
    attention: Mapping[tuple[int, str], Tensor] = dataclasses.field(default_factory=dict)
    tokens: Mapping[tuple[int, str], Tensor] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    gates: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    bags: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a network must fit: the teachers, their levels and widths, and the task's outputs.

    Attributes:
        teachers: names, in the order of the batch.
        dims: for each teacher, level -> width.
        outputs: number of task outputs.
    """

    teachers: tuple[str, ...]
    dims: tuple[dict[str, int], ...]
    outputs: int


@dataclasses.dataclass(frozen=True)
class Objective:
    """The task, as far as a network may know it.

    Attributes:
        type: of the task.
        loss: (out (B, C), y (B, columns)) -> mean loss.
        class_weights: of a classification, one per class.
        endpoints: the task's own endpoint and then the auxiliary ones; empty where it is the
            only one.
    """

    type: TaskType
    loss: Callable[[Tensor, Tensor], Tensor]
    class_weights: tuple[float, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One endpoint of several: its share of outputs and target columns (NaN: no label)."""

    name: str
    task: Objective
    outputs: slice
    columns: slice


@dataclasses.dataclass(frozen=True)
class Lesson:
    """The training part, for what a network fits by other means than gradients.

    Attributes:
        store: the bags.
        train: int64 (n,), the training cases.
        y: float32 (cases, columns), the task's targets.
        strata: int64 (n,), of the training cases.
        groups: int64 (n,), of the training cases: those of one group are never on both sides of an
            inner split.
        task: the task.
        bags: case numbers -> batches of their bags as prediction reads them.
        standardise: whether features are scaled.
        seed: of everything random in the fit.
    """

    store: Store
    train: np.ndarray
    y: np.ndarray
    strata: np.ndarray
    groups: np.ndarray
    task: Objective
    bags: Callable[[np.ndarray], Iterable[Batch]]
    standardise: bool
    seed: int


class Network(nn.Module):
    """Base of all models: scales the features, then does its work.

    Args:
        shape: teachers, widths and outputs.

    Attributes:
        training_only: prefixes of the state that inference does not need.
        learns_by_gradient: whether there is something to train after `fit`.
        warm_up: epochs in which its learning rate rises to what the config says.
    """

    training_only: ClassVar[tuple[str, ...]] = ()
    learns_by_gradient: ClassVar[bool] = True
    warm_up: int = 0

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.scaler = Scaler(shape.dims)

    def fit(self, lesson: Lesson) -> None:
        """Fit what is not learned by gradient, on the training cases alone."""
        if lesson.standardise:
            self.scaler.fit(lesson.store, lesson.train)

    def forward(self, batch: Batch) -> Output:
        raise NotImplementedError

    def extra_loss(self, output: Output, batch: Batch, classes: Tensor | None) -> Tensor | None:
        """A loss besides the task's, or None.

        Args:
            output: what `forward` returned for the batch.
            batch: the batch.
            classes: int64 (B,) of a classification, else None.
        """
        return None

    def rates(self) -> dict[str, float]:
        """Parameter -> its share of the learning rate; those that are not named have all of it."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What the model wants to be known of it in meta.json."""
        return {}


def parameter_count(network: Network) -> int:
    """Trainable parameters of what is kept; what only the distillation loss uses is not counted."""
    return sum(
        p.numel()
        for name, p in network.named_parameters()
        if p.requires_grad and not name.startswith(network.training_only)
    )


def fitted_count(network: Network) -> int:
    """Numbers of what is kept that are fitted without gradients: features' means and deviations,
    statistics of cases."""
    kept = network.state_dict(keep_vars=True).items()
    return sum(
        value.numel()
        for name, value in kept
        if not isinstance(value, nn.Parameter) and not name.startswith(network.training_only)
    )
