"""What a forest of randomised trees says of cases that it has not learned from.

Extremely randomised trees (Geurts, Ernst & Wehenkel, Machine Learning 2006), for survival with
splits by the log-rank test (Ishwaran et al., Ann Appl Stat 2008). Beside a linear model they see
thresholds and interactions. What a forest says of cases that it has learned from is little more
than their labels, so that each case is asked in the fold of an inner cross-validation that leaves
it out.

The libraries are imported where they are used: most trainings have no forest, and would wait for
them.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from pipeline.aggregators.network import Objective
from pipeline.linear.estimators import parts

# Raised when a forest's answers change. 1: the first.
VERSION = 1

TREES = 300
SURVIVAL_TREES = 100  # each split looks at all times
LEAF = 3  # cases in a leaf, at least
SURVIVAL_LEAF = 10  # most of them may be censored
TIMES = 50  # later than the same event time is as late: splits cost time in their number
LEAST = 1e-3  # of a probability or a hazard, before its logarithm is taken

Matrix = NDArray[np.float64]


def answers_unseen(
    x: Matrix,
    y: np.ndarray,
    task: Objective,
    strata: np.ndarray,
    groups: np.ndarray,
    seed: int,
) -> Matrix | None:
    """Outputs for every case, each of a forest that has not seen it; None where there are too few.

    Args:
        x: (n, d), what is known of the cases.
        y: float32 (n, columns), the task's targets.
        task: the task.
        strata: int64 (n,), what each inner part gets its share of.
        groups: int64 (n,): cases of one group stay together.
        seed: of the inner parts and of the trees.

    Returns:
        float64 (n, C): log probabilities of classes, numbers of a regression, the logarithm of the
        expected number of events (survival).
    """
    held_out = parts(strata, groups, seed)
    if not held_out:
        return None
    said = np.zeros((len(x), _outputs(y, task)))
    for rows in held_out:
        learn = np.setdiff1d(np.arange(len(x)), rows)
        if task.type == "survival" and not (y[learn, 1] > 0).any():
            return None
        said[rows] = _ASK[task.type](x[learn], y[learn], x[rows], task, seed % 2**32)
    return said


def _outputs(y: np.ndarray, task: Objective) -> int:
    return {
        "survival": 1,
        "classification": len(task.class_weights),
        "regression": y.shape[1],
    }[task.type]


def _classes(x: Matrix, y: np.ndarray, asked: Matrix, task: Objective, seed: int) -> Matrix:
    from sklearn.ensemble import ExtraTreesClassifier

    label = y[:, 0].astype(np.int64)
    forest = ExtraTreesClassifier(TREES, min_samples_leaf=LEAF, random_state=seed)
    forest.fit(x, label, sample_weight=np.asarray(task.class_weights)[label])
    shares = np.zeros((len(asked), len(task.class_weights)))
    shares[:, forest.classes_] = forest.predict_proba(asked)
    return np.log(np.clip(shares, LEAST, 1))


def _numbers(x: Matrix, y: np.ndarray, asked: Matrix, task: Objective, seed: int) -> Matrix:
    from sklearn.ensemble import ExtraTreesRegressor

    forest = ExtraTreesRegressor(
        TREES, min_samples_leaf=LEAF, max_features="sqrt", random_state=seed
    )
    return np.asarray(forest.fit(x, y[:, 0] if y.shape[1] == 1 else y).predict(asked)).reshape(
        len(asked), -1
    )


def _risk(x: Matrix, y: np.ndarray, asked: Matrix, task: Objective, seed: int) -> Matrix:
    from sksurv.ensemble import ExtraSurvivalTrees
    from sksurv.util import Surv

    forest = ExtraSurvivalTrees(
        SURVIVAL_TREES,
        min_samples_leaf=SURVIVAL_LEAF,
        max_features="sqrt",
        random_state=seed,
        low_memory=True,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forest.fit(x, Surv.from_arrays(y[:, 1] > 0, _coarse(y[:, 0], y[:, 1] > 0)))
    return np.log(np.clip(forest.predict(asked), LEAST, None))[:, None]


def _coarse(time: np.ndarray, event: np.ndarray) -> np.ndarray:
    """Times, each the next of at most TIMES event times or later; their order stays."""
    if len(np.unique(time[event])) <= TIMES:
        return time
    grid = np.unique(np.quantile(time[event], np.linspace(0, 1, TIMES + 1), method="higher"))
    return grid[np.minimum(np.searchsorted(grid, time), len(grid) - 1)]


_ASK = {"classification": _classes, "regression": _numbers, "survival": _risk}
