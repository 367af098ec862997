"""A small regression on what other models say of a case, and on covariates.

Models are weighed by predictions of cases that they have not learned from (stacking: Wolpert,
Neural Networks 1992), with weights that are not negative (Breiman, "Stacked regressions", Machine
Learning 1996; for survival Golmakani & Polley, Int J Biostat 2020). A squared norm on all
weights draws models that say the same towards equal shares; how heavy it is, cross-validation
within the given cases decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from pipeline.aggregators.network import Objective
from pipeline.linear.estimators import parts

# Penalties of the mean loss, the heaviest first. Columns come with a variance near 1.
PENALTIES = np.logspace(0, -4, 5)
NONE = (0.0,)  # nothing is weighed down: of a likelihood ratio
# Losses are of single precision: what is asked for beyond it is noise.
PRECISION = {"ftol": 1e-7, "gtol": 1e-5, "maxiter": 200}

Matrix = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Stack:
    """out = Σ members · z + x @ covariates + constant.

    Attributes:
        members: float64 (M,), not negative.
        covariates: float64 (P, C).
        constant: float64 (C,).
        penalty: that was chosen.
    """

    members: Matrix
    covariates: Matrix
    constant: Matrix
    penalty: float

    def __call__(self, z: Matrix, x: Matrix) -> Matrix:
        """Outputs float64 (n, C).

        Args:
            z: (n, M, C), what the members say.
            x: (n, P), covariates.
        """
        return np.asarray(np.einsum("m,nmc->nc", self.members, z) + x @ self.covariates) + (
            self.constant
        )


def fit_stack(
    z: Matrix,
    x: Matrix,
    y: np.ndarray,
    task: Objective,
    strata: np.ndarray,
    groups: np.ndarray,
    seed: int,
    penalties: Sequence[float] = tuple(PENALTIES),
) -> Stack:
    """The stack with the penalty that predicts cases best which it has not learned from.

    Args:
        z: (n, M, C), what the members say of cases that they have not learned from.
        x: (n, P), covariates.
        y: float32 (n, columns), the task's targets.
        task: the task.
        strata: int64 (n,), what each inner part gets its share of.
        groups: int64 (n,): cases of one group stay together.
        seed: of the inner parts.
        penalties: to choose from, the heaviest first.
    """
    scale = np.sqrt(z.var(axis=0).mean(axis=1))
    scale = np.where(scale > 1e-9, scale, np.inf)  # a member that says one thing says nothing
    scaled = z / scale[None, :, None]
    with threadpool_limits(1):  # sums of several threads depend on which comes first
        whole = _path(scaled, x, y, task, penalties)
        chosen = 0
        if len(penalties) > 1:
            chosen = _chosen(scaled, x, y, task, parts(strata, groups, seed), penalties)
    best = whole[chosen]
    return dataclasses.replace(best, members=best.members / scale)


def loss_of(stack: Stack, z: Matrix, x: Matrix, y: np.ndarray, task: Objective) -> float:
    """The task's mean loss.

    Args:
        stack: fitted.
        z: (n, M, C), what the members say.
        x: (n, P), covariates.
        y: float32 (n, columns), the task's targets.
        task: the task.
    """
    out = torch.from_numpy(stack(z, x)).float()
    return float(task.loss(out, torch.from_numpy(y)))


def _chosen(
    z: Matrix,
    x: Matrix,
    y: np.ndarray,
    task: Objective,
    held_out: list[np.ndarray],
    penalties: Sequence[float],
) -> int:
    """Number of the penalty with the least loss on inner parts; the middle one without parts."""
    total = np.zeros(len(penalties))
    for rows in held_out:
        if task.type == "survival" and not (y[rows, 1] > 0).any():
            continue
        learn = np.setdiff1d(np.arange(len(y)), rows)
        path = _path(z[learn], x[learn], y[learn], task, penalties)
        total += [len(rows) * loss_of(one, z[rows], x[rows], y[rows], task) for one in path]
    return int(np.argmin(total)) if total.any() else len(penalties) // 2


def _path(
    z: Matrix, x: Matrix, y: np.ndarray, task: Objective, penalties: Sequence[float]
) -> list[Stack]:
    """The stack at each penalty, each starting from the one before it."""
    _, members, outputs = z.shape
    columns = x.shape[1]
    said, given, aims = (torch.from_numpy(np.asarray(v)) for v in (z, x, y))
    # A constant moves no risk, and Cox's likelihood says nothing of it.
    free = 0 if task.type == "survival" else outputs
    sizes = [members, columns * outputs, free]
    bounds = [(0.0, None)] * members + [(None, None)] * (columns * outputs + free)
    at = np.concatenate([np.full(members, 1 / max(members, 1)), np.zeros(sum(sizes[1:]))])
    found = []
    for penalty in penalties:

        def cost(theta: np.ndarray, heavy: float = penalty) -> tuple[float, np.ndarray]:
            values = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
            w, b, c = values.split(sizes)
            out = torch.einsum("m,nmc->nc", w, said) + given @ b.reshape(columns, outputs)
            out = out + (c if free else 0.0)
            loss = task.loss(out, aims) + heavy * (w.square().sum() + b.square().sum())
            loss.backward()
            assert values.grad is not None
            return float(loss.detach()), values.grad.numpy().astype(np.float64)

        if len(at):
            at = minimize(cost, at, jac=True, method="L-BFGS-B", bounds=bounds, options=PRECISION).x
        w, b, c = np.split(at, np.cumsum(sizes)[:-1])
        constant = c if free else np.zeros(outputs)
        found.append(Stack(w, b.reshape(columns, outputs), constant, float(penalty)))
    return found
