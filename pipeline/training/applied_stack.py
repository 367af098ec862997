"""A fitted stack of models and covariates, applied to cases that its training did not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.linear.design import Design
from pipeline.linear.stack import Stack
from pipeline.training.classification import ClassificationHead
from pipeline.training.head import Head
from pipeline.training.regression import RegressionHead

LEAST_PROBABILITY = 1e-6
FLAT = 1e-9  # of a deviation beside 1 + |mean|: less is one risk for all cases
KEPT = ("members", "design", "patterns")  # of what a training writes down of its stack


@dataclasses.dataclass(frozen=True)
class AppliedStack:
    """The regressions of one fold and seed.

    Attributes:
        members: names of the models, in the order of its weights.
        design: of the covariates.
        patterns: numbers of the members that a case has -> the regression on these.
        head: of the task.
    """

    members: tuple[str, ...]
    design: Design
    patterns: Mapping[tuple[int, ...], Stack]
    head: Head

    def __call__(self, z: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the stack says.

        A case is predicted by the regression on the members that it has. Where training met no
        case like it and fitted none, it is the regression on the most of them.

        Args:
            z: (n, M, C), what the members say, in the common unit; NaN where nothing.
            x: (n, P), covariates.

        Returns:
            numbers of the cases that can be predicted, and outputs float32 (k, C) of these.
        """
        there = np.isfinite(z).all(axis=2)
        known: list[int] = []
        out: list[np.ndarray] = []
        for i, has in enumerate(there):
            pattern = self.pattern(tuple(np.flatnonzero(has).tolist()))
            if pattern is not None:
                stack = self.patterns[pattern]
                known.append(i)
                out.append(stack(z[i : i + 1][:, list(pattern)], x[i : i + 1])[0])
        made = np.array(out, dtype=np.float32).reshape(len(known), self.head.outputs)
        return np.array(known, dtype=np.int64), made

    def pattern(self, members: tuple[int, ...]) -> tuple[int, ...] | None:
        """Numbers of those of a case's members that a regression reads; None where none does."""
        fitting = [own for own in self.patterns if set(own) <= set(members)]
        return max(fitting, key=lambda own: (len(own), own), default=None)


def stack_of(network: Mapping[str, Any], head: Head) -> AppliedStack:
    """The stack of a training.

    Args:
        network: `ModelMeta.network` of the training, or its parts that KEPT names.
        head: of the training.
    """
    names, design = list(network["members"]), network["design"]
    columns = len(design["names"])
    patterns = {
        tuple(names.index(name) for name in one["members"]): Stack(
            np.array(one["weights"], dtype=np.float64),
            np.array(one["coefficients"], dtype=np.float64).reshape(columns, head.outputs),
            np.array(one["constant"], dtype=np.float64),
            float(one["penalty"]),
        )
        for one in network["patterns"]
    }
    fitted = Design(
        tuple(design["names"]),
        np.array(design["centre"], dtype=np.float64),
        np.array(design["scale"], dtype=np.float64),
        dict(design["medians"]),
    )
    return AppliedStack(tuple(names), fitted, patterns, head)


def in_common(said: Mapping[str, Any], head: Head) -> np.ndarray:
    """A member's predictions in the unit that all members share: float64 (n, C).

    Logarithms of probabilities less their mean over classes; numbers in deviations of the training
    part; risks less the mean of the member's training cases, in their deviations.

    Args:
        said: columns (n,) as `Head.columns` names them; of a risk also `risk_mean` and
            `risk_deviation`.
        head: of the task.
    """
    if isinstance(head, ClassificationHead):
        logs = np.log(_side_by_side(said, [f"prob_{name}" for name in head.classes]))
        return np.asarray(logs - logs.mean(axis=1, keepdims=True))
    if isinstance(head, RegressionHead):
        values = _side_by_side(said, [f"pred_{name}" for name in head.names], least=-np.inf)
        return np.asarray((values - np.array(head.mean)) / np.array(head.deviation))
    risk, mean, deviation = (
        np.asarray(said[name], dtype=np.float64) for name in ("risk", "risk_mean", "risk_deviation")
    )
    told = deviation > FLAT * (1 + np.abs(mean))
    return np.where(told, (risk - mean) / np.where(told, deviation, 1.0), 0.0)[:, None]


def _side_by_side(
    said: Mapping[str, Any], names: Sequence[str], least: float = LEAST_PROBABILITY
) -> np.ndarray:
    columns = [np.asarray(said[name], dtype=np.float64) for name in names]
    return np.stack(columns, axis=1).clip(min=least)
