"""What the slides say beyond covariates such as age, sex and stage.

The student together with the covariates against the covariates alone, by every metric, on the same
cases and with the same test as every other comparison. Next to these a likelihood ratio: of the
outcomes of the tested cases, given what the covariates' model says of them out of fold, and given
that and what the student alone says. Its weights are not negative, so that p is half of that of a
χ² with one degree of freedom (Self & Liang, JASA 1987). It takes the trained models as given: which
the difference of the metric, drawn over folds, does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp

from pipeline.config.controls import Controls
from pipeline.evaluation.comparisons import compare
from pipeline.evaluation.metrics import Bench, Measured
from pipeline.evaluation.pooling import Pool, pooled

LEAST_PROBABILITY = 1e-6


def covariates_table(
    controls: Controls,
    student: str,
    models: Mapping[str, tuple[Pool, Measured]],
    bench: Bench,
    confidence: float,
) -> pd.DataFrame | None:
    """A row a metric; None where the cohort has no covariates.

    Args:
        controls: which models they are.
        student: the student's name.
        models: every model, by name.
        bench: the evaluated cases.
        confidence: of the intervals.

    Returns:
        the columns of `comparisons.compare`, `student` being the student with covariates;
        with_value and other_value of both models; and, in every row, likelihood_ratio and
        p_likelihood (NaN of several regression targets).
    """
    if not controls.covariates or not controls.with_covariates:
        return None
    both, alone = models[controls.with_covariates], models[controls.covariates]
    table = compare(both, [alone], bench, confidence)
    for column, one in (("with_value", both), ("other_value", alone)):
        table[column] = [float(one[1].values[name][0]) for name in table["metric"]]
    ratio, p = likelihood_ratio(alone[0], models[student][0], bench)
    return table.assign(likelihood_ratio=ratio, p_likelihood=p)


def likelihood_ratio(alone: Pool, student: Pool, bench: Bench) -> tuple[float, float]:
    """Twice the gain in log likelihood by the student's predictions, and its p; NaN where several
    numbers are predicted.

    Args:
        alone: the model of covariates alone.
        student: the model of slides.
        bench: the evaluated cases.
    """
    first, second = (pooled(pool, bench.labels.cases) for pool in (alone, student))
    rows = np.flatnonzero(first.there & second.there)
    labels = bench.labels.take(rows)
    said = [one.values[rows] for one in (first, second)]
    if labels.label is not None:
        ratio = _of_classes([_logs(values) for values in said], labels.label)
    elif labels.time is not None:
        assert labels.event is not None
        ratio = _of_hazards(np.hstack(said), labels.time, labels.event)
    else:
        assert labels.targets is not None
        if labels.targets.shape[1] > 1:
            return math.nan, math.nan
        ratio = _of_numbers(np.hstack(said), labels.targets[:, 0])
    return ratio, float(stats.chi2.sf(ratio, 1) / 2) if ratio > 0 else 1.0


def _of_hazards(scores: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    """Cox's model, by lifelines. `scores`: float64 (n, 2), covariates' and student's."""
    table = pd.DataFrame({"covariates": scores[:, 0], "student": scores[:, 1]})
    table = table.assign(time=time, event=event)
    both = CoxPHFitter().fit(table, "time", "event")
    one = CoxPHFitter().fit(table.drop(columns="student"), "time", "event")
    gain = 2 * (both.log_likelihood_ - one.log_likelihood_)
    return max(0.0, float(gain)) if both.params_["student"] > 0 else 0.0


def _of_numbers(values: np.ndarray, true: np.ndarray) -> float:
    """Least squares, errors being normal. `values`: float64 (n, 2)."""
    with_constant = np.column_stack([np.ones(len(true)), values])
    left = []
    for columns in (with_constant[:, :2], with_constant):
        weights, *_ = np.linalg.lstsq(columns, true, rcond=None)
        left.append(float(np.square(true - columns @ weights).sum()))
    return max(0.0, len(true) * math.log(left[0] / left[1])) if weights[2] > 0 else 0.0


def _of_classes(logs: list[np.ndarray], label: np.ndarray) -> float:
    """Logits that are a weighted sum of both models' log probabilities, and a constant a class."""
    own = np.arange(len(label)), label

    def least(members: list[np.ndarray]) -> float:
        k, classes = len(members), logs[0].shape[1]

        def cost(theta: np.ndarray) -> float:
            logits = theta[k:] + sum(w * z for w, z in zip(theta, members, strict=False))
            return float((logsumexp(logits, axis=1) - logits[own]).sum())

        bounds = [(0.0, None)] * k + [(None, None)] * classes
        return float(minimize(cost, np.full(k + classes, 0.5), bounds=bounds).fun)

    return max(0.0, 2 * (least(logs[:1]) - least(logs)))


def _logs(probabilities: np.ndarray) -> np.ndarray:
    """Log probabilities less their mean over classes."""
    logs = np.log(probabilities.clip(min=LEAST_PROBABILITY))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))
