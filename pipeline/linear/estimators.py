"""Penalised linear models of few cases with many features, by scikit-learn and scikit-survival.

One family for all tasks: least loss plus a squared norm of the weights (ridge; Hoerl & Kennard,
Technometrics 1970), which for a Cox model is that of Verweij & van Houwelingen (Stat Med 1994). How
heavy the penalty is, cross-validation within the given cases decides.

Both libraries are imported where they are used: most trainings have no linear model, and would wait
for them as long as for torch.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pipeline.aggregators.network import Objective

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

# Penalties of the mean loss, the heaviest first. Features come with a squared length near 1.
PENALTIES = np.logspace(1, -4, 16)
PARTS = 5  # of the inner cross-validation
# Coxnet needs a share of the absolute norm; with this little it is a ridge but for rounding.
ABSOLUTE = 0.01

Matrix = NDArray[np.float64]
Path = Callable[[Matrix, np.ndarray, np.ndarray], "list[Linear]"]


@dataclasses.dataclass(frozen=True)
class Linear:
    """x -> x @ weights + constant.

    Attributes:
        weights: float64 (d, C).
        constant: float64 (C,).
    """

    weights: Matrix
    constant: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        """(n, d) -> (n, C)."""
        return np.asarray(x @ self.weights + self.constant)


def fit(
    x: Matrix,
    y: np.ndarray,
    task: Objective,
    strata: np.ndarray,
    groups: np.ndarray,
    seed: int,
) -> tuple[Linear, float]:
    """The model with the penalty that predicts cases best which it has not learned from.

    Args:
        x: (n, d), each column of mean 0.
        y: float32 (n, columns), the task's targets.
        task: the task.
        strata: int64 (n,), what each inner part gets its share of.
        groups: int64 (n,): cases of one group stay together.
        seed: of the inner parts.

    Returns:
        the model, fitted to all cases, and its penalty.
    """
    with threadpool_limits(1):  # sums of several threads depend on which comes first
        rotated, back = _rotated(x)
        path = PATHS[task.type]
        weights = np.array(task.class_weights)
        whole = path(rotated, y, weights)
        chosen = _chosen(rotated, y, task, parts(strata, groups, seed), path, len(whole))
    best = whole[chosen]
    return Linear(back @ best.weights, best.constant), float(PENALTIES[chosen])


def parts(strata: np.ndarray, groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """Rows of each inner part: strata evenly, groups whole; none where that cannot be done.

    Args:
        strata: int64 (n,), what each part gets its share of.
        groups: int64 (n,): cases of one group stay together.
        seed: of the dealing.
    """
    counts = np.bincount(np.unique(strata, return_inverse=True)[1])
    k = min(PARTS, int(counts.min()), len(np.unique(groups)))
    if k < 2:
        return []
    from sklearn.model_selection import StratifiedGroupKFold

    dealt = StratifiedGroupKFold(k, shuffle=True, random_state=seed % 2**32)
    return [held_out for _, held_out in dealt.split(strata, strata, groups) if len(held_out)]


def _rotated(x: Matrix) -> tuple[Matrix, Matrix]:
    """x in the basis of its own rows, (n, r) with r <= n, and the way back (d, r).

    The squared norm does not change with the basis, and the arithmetic is that of n columns.
    """
    left, lengths, right = np.linalg.svd(x, full_matrices=False)
    kept = lengths > 1e-9 * max(lengths.max(initial=0.0), 1e-30)
    return left[:, kept] * lengths[kept], right[kept].T


def _chosen(
    x: Matrix,
    y: np.ndarray,
    task: Objective,
    held_out: list[np.ndarray],
    path: Path,
    points: int,
) -> int:
    """Number of the penalty with the least loss on inner parts; the middle one without parts."""
    losses = []
    for rows in held_out:
        learn = np.setdiff1d(np.arange(len(x)), rows)
        models = path(x[learn], y[learn], np.array(task.class_weights))[:points]
        said = [_loss(task, model(x[rows]), y[rows]) for model in models]
        losses.append(np.pad(said, (0, points - len(said)), constant_values=np.inf) * len(rows))
    total = np.sum([loss for loss in losses if not np.isnan(loss).any()], axis=0)
    return int(np.argmin(total)) if np.ndim(total) else points // 2


def _loss(task: Objective, out: Matrix, y: np.ndarray) -> float:
    """The task's loss of held-out cases; NaN of a survival part that has no event."""
    if task.type == "survival" and not (y[:, 1] > 0).any():
        return float("nan")
    return float(task.loss(torch.from_numpy(out).float(), torch.from_numpy(y)))


def _ridge(x: Matrix, y: np.ndarray, weights: np.ndarray) -> list[Linear]:
    from sklearn.linear_model import Ridge

    n = len(x)
    found = [Ridge(penalty * n).fit(x, y) for penalty in PENALTIES]
    shape = (x.shape[1], y.shape[1])
    return [Linear(m.coef_.reshape(shape[::-1]).T, np.atleast_1d(m.intercept_)) for m in found]


def _logistic(x: Matrix, y: np.ndarray, weights: np.ndarray) -> list[Linear]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    label, n = y[:, 0].astype(np.int64), len(x)
    model = LogisticRegression(warm_start=True, max_iter=1000)
    found = []
    for penalty in PENALTIES:
        model.set_params(C=1 / (penalty * n))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, label, sample_weight=weights[label])
        found.append(_logits(model, len(weights)))
    return found


def _logits(model: LogisticRegression, classes: int) -> Linear:
    """One logit a class; a class that no case has here is out of the question."""
    coefficients, constant = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has the log odds of the second alone
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        constant = np.concatenate([-constant / 2, constant / 2])
    weights, offset = np.zeros((coefficients.shape[1], classes)), np.full(classes, -20.0)
    weights[:, model.classes_] = coefficients.T
    offset[model.classes_] = constant
    return Linear(weights, offset)


def _cox(x: Matrix, y: np.ndarray, weights: np.ndarray) -> list[Linear]:
    from sksurv.linear_model import CoxnetSurvivalAnalysis
    from sksurv.util import Surv

    outcome = Surv.from_arrays(y[:, 1] > 0, y[:, 0])
    penalties = PENALTIES
    while True:
        model = CoxnetSurvivalAnalysis(alphas=penalties, l1_ratio=ABSOLUTE, max_iter=100_000)
        try:
            model.fit(x, outcome)
            break
        except ArithmeticError:  # the lightest penalty lets the weights grow without end
            penalties = penalties[:-1]
    return [Linear(column[:, None], np.zeros(1)) for column in model.coef_.T]


PATHS: dict[str, Path] = {"regression": _ridge, "classification": _logistic, "survival": _cox}
