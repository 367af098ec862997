"""What every model of a cohort is: a batch of bags in, outputs and what explains them out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store


@dataclasses.dataclass(frozen=True)
class Output:
    """What a network says of B cases.

    Attributes:
        out: (B, C), the task's raw outputs.
        attention: (teacher number, level) -> (B, N_t), a tile's share of its bag; sums to 1.
        tokens: (teacher number, level) -> (B, d_model), the pooled vectors (students).
        levels: level -> (B, d_model), the student's state after each level.
        gates: level -> (B, T), the weight that a level gives each teacher; sums to 1.
        anchor: (B, C), what the weighted probes say; of training cases, without having seen them.
        bags: for each teacher, what its aggregator returned, for instance losses.
    """

    out: Tensor
    attention: Mapping[tuple[int, str], Tensor] = dataclasses.field(default_factory=dict)
    tokens: Mapping[tuple[int, str], Tensor] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    gates: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    anchor: Tensor | None = None
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
        loss: (out (B, C), y (B, columns)) -> mean loss.
        evidence: (out float (n, C), y float32 (n, columns)) -> log-likelihood, summed over cases.
        null: float64 (C,), the constant prediction with the least training loss.
        one_question: all outputs ask the same of a case (its hazard, bin by bin).
        endpoints: the task's own endpoint and then the auxiliary ones; empty where it is the
            only one.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    evidence: Callable[[np.ndarray, np.ndarray], float]
    null: np.ndarray
    one_question: bool = False
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
        task: the task.
        standardise: whether features are scaled.
        seed: of everything random in the fit.
    """

    store: Store
    train: np.ndarray
    y: np.ndarray
    strata: np.ndarray
    task: Objective
    standardise: bool
    seed: int


class Network(nn.Module):
    """Base of all models: scales the features, then does its work.

    Args:
        shape: teachers, widths and outputs.

    Attributes:
        training_only: prefixes of the state that inference does not need.
        settled: names of the buffers that `settle` fills.
    """

    training_only: ClassVar[tuple[str, ...]] = ()
    settled: ClassVar[tuple[str, ...]] = ()

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

    @property
    def refits(self) -> bool:
        """Whether `finish` does anything."""
        return False

    def finish(self, lesson: Lesson) -> None:
        """Fit again, without gradients, what needs no validation part, when that part is done with.

        Args:
            lesson: as for `fit`, with the validation cases among the training cases.
        """

    def settle(self, batches: Iterable[Batch], y: np.ndarray, task: Objective) -> None:
        """A last fit after training, on the validation part.

        Args:
            batches: whole bags of the validation cases.
            y: float32 (cases, columns), the task's targets, of which those cases' are used.
            task: the task.
        """

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
    weights of linear models, prototypes."""
    kept = network.state_dict(keep_vars=True).items()
    return sum(
        value.numel()
        for name, value in kept
        if not isinstance(value, nn.Parameter) and not name.startswith(network.training_only)
    )
