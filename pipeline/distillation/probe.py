"""What each teacher alone can say, fitted in closed form on the training part.

A probe is a ridge regression of the task's working response (minus the gradient of the loss at the
constant prediction: for Cox the martingale residuals, for classification label minus prior, for
regression the target itself) on the case means of a teacher's features. That is one Newton step
towards the penalised maximum-likelihood fit with constant curvature, and in small cohorts, where
the best penalty is large, as good as the fit itself. Inner cross-validation gives every training
case a prediction by a probe that has not seen it; these out-of-fold predictions choose the penalty,
say how reliable each teacher is, and can teach a student.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from pipeline.aggregators.network import Objective

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # per case, for standardised features
INNER_FOLDS = 5
REPEATS = 3
LARGEST = 32
CLIP = 5.0  # deviations; an outlying case must not outvote the rest


@dataclasses.dataclass(frozen=True)
class Probe:
    """x -> clip((x - mean) / deviation) @ weights, a departure from the constant prediction.

    Attributes:
        mean, deviation: float64 (d,).
        weights: float64 (d, C).
    """

    mean: np.ndarray
    deviation: np.ndarray
    weights: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """(n, d) -> (n, C)."""
        return standardised(x, self.mean, self.deviation) @ self.weights


@dataclasses.dataclass(frozen=True)
class Reading:
    """A teacher's probe and what it says of the training cases without having seen them.

    Attributes:
        probe: fitted on all training cases that have the teacher; scaled as `out_of_fold` is.
        out_of_fold: float64 (n, C); 0 for a case without the teacher.
        evidence: log-likelihood of `out_of_fold` less that of the constant prediction, over the
            cases that have the teacher: how much the teacher proved to know.
        penalty: per case, the mean (of logarithms) under the weights of the penalties.
    """

    probe: Probe
    out_of_fold: np.ndarray
    evidence: float
    penalty: float


def standardised(x: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """(x - mean) / deviation, float64 (n, d).

    Args:
        x: float (n, d).
        mean: float64 (d,).
        deviation: float64 (d,), infinite where a feature is constant.
    """
    return np.clip((x - mean) / deviation, -CLIP, CLIP)


def center(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (d,) of (n, d); a feature that does not vary has an infinite deviation."""
    mean, deviation = x.mean(0), x.std(0)
    return mean, np.where(deviation > 1e-9 * (1 + np.abs(mean)), deviation, np.inf)


def working_response(task: Objective, y: np.ndarray) -> np.ndarray:
    """Minus the gradient of the summed loss at the constant prediction, centred: float64 (n, C).

    Where all outputs ask the same of a case, each is drawn half way to their mean: what a feature
    says of one bin's hazard it mostly says of the others', and few events tell them apart.
    """
    out = torch.from_numpy(np.tile(task.null, (len(y), 1)).astype(np.float32)).requires_grad_()
    (slope,) = torch.autograd.grad(task.loss(out, torch.from_numpy(y)), out)
    response = -len(y) * slope.double().numpy()
    response = response - response.mean(0)
    return (response + response.mean(1, keepdims=True)) / 2 if task.one_question else response


def ridge_path(
    x: np.ndarray, response: np.ndarray, penalties: tuple[float, ...], trust: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Ridge weights for several penalties from one eigendecomposition of the smaller Gram matrix.

    Args:
        x: (n, d), raw case means.
        response: (n, C), centred.
        penalties: per case.
        trust: (d,), the deviation of a weight's prior relative to the other weights'.

    Returns:
        mean and deviation (d,) of x, and weights (d, C) for each penalty.
    """
    mean, deviation = center(x)
    z = standardised(x, mean, deviation) * trust
    n, d = z.shape
    if n < d:
        values, vectors = np.linalg.eigh(z @ z.T)
        right, left = vectors.T @ response, (z * trust).T @ vectors
    else:
        values, vectors = np.linalg.eigh(z.T @ z)
        right, left = vectors.T @ (z.T @ response), (vectors.T * trust).T
    values = np.maximum(values, 0)
    weights = [left @ (right / (values + n * penalty)[:, None]) for penalty in penalties]
    return mean, deviation, weights


def fit_probe(
    x: np.ndarray,
    has: np.ndarray,
    strata: np.ndarray,
    y: np.ndarray,
    task: Objective,
    rng: np.random.Generator,
    trust: np.ndarray | float = 1.0,
) -> Reading | None:
    """Probe one teacher.

    Penalties are not chosen but averaged, each weighted by its out-of-fold likelihood: in a small
    cohort their order is mostly chance.

    Args:
        x: float64 (n, d), case means; rows without the teacher are ignored.
        has: bool (n,), whether the case has the teacher.
        strata: int64 (n,), spread evenly over the inner folds.
        y: float32 (n, columns), targets.
        task: loss, constant prediction and likelihood.
        rng: decides the inner folds.
        trust: (d,), as `ridge_path` takes it.

    Returns:
        the reading, or None where too few cases have the teacher to cross-validate.
    """
    rows = np.flatnonzero(has)
    if len(rows) < 2 * INNER_FOLDS:
        return None
    held = np.zeros((len(PENALTIES), len(rows), len(task.null)))
    for _ in range(REPEATS):
        fold = inner_folds(strata[rows], rng)
        for k in range(INNER_FOLDS):
            inside, outside = rows[fold != k], rows[fold == k]
            try:
                response = working_response(task, y[inside])
            except ValueError:  # a Cox part without an event: these cases keep the constant
                continue
            mean, deviation, path = ridge_path(x[inside], response, PENALTIES, trust)
            z = standardised(x[outside], mean, deviation)
            for i, weights in enumerate(path):
                held[i, fold == k] += z @ weights / REPEATS
    scales = np.array([best_scale(task, each, y[rows]) for each in held])
    held *= scales[:, None, None]
    likely = np.array([task.evidence(task.null + each, y[rows]) for each in held])
    share = posterior(likely)
    response = working_response(task, y[rows])
    mean, deviation, path = ridge_path(x[rows], response, PENALTIES, trust)
    out = np.zeros((len(x), len(task.null)))
    out[rows] = np.einsum("p,pnc->nc", share, held)
    probe = Probe(mean, deviation, np.einsum("p,pdc->dc", share * scales, np.stack(path)))
    constant = np.tile(task.null, (len(rows), 1))
    gained = task.evidence(task.null + out[rows], y[rows]) - task.evidence(constant, y[rows])
    return Reading(probe, out, gained, float(np.exp(share @ np.log(PENALTIES))))


def components(z: list[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Leading principal components of several teachers' features, each of unit mean square.

    Every teacher counts alike, however wide it is. As many components as a third of the cases, 32
    at most: the last components of few cases are noise.

    Args:
        z: for each teacher (n, d_t), standardised; 0 where a case has no such teacher.

    Returns:
        (n, k), and for each teacher the map (d_t, k) that leads from its features to its part.
    """
    shares = [part / np.sqrt(part.shape[1]) for part in z]
    joined = np.concatenate(shares, axis=1)
    n = len(joined)
    values, vectors = np.linalg.eigh(joined @ joined.T)
    kept = np.flatnonzero(values > 1e-9 * max(values[-1], 1e-30))[::-1]
    kept = kept[: max(1, min(n // 3, LARGEST))]
    leading = vectors[:, kept] * np.sqrt(n)
    maps = [part.T @ leading / values[kept] / np.sqrt(part.shape[1]) for part in shares]
    return leading, maps


def posterior(evidence: np.ndarray) -> np.ndarray:
    """Weights of alternatives with equal prior from their log-likelihoods; sum to 1."""
    weights = np.exp(evidence - evidence.max())
    return weights / weights.sum()


def inner_folds(strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fold number per row, int64 (n,); strata are dealt out evenly."""
    order = rng.permutation(len(strata))
    dealt = order[np.argsort(strata[order], kind="stable")]
    fold = np.empty(len(strata), dtype=np.int64)
    fold[dealt] = np.arange(len(strata)) % INNER_FOLDS
    return fold


def best_scale(task: Objective, prediction: np.ndarray, y: np.ndarray) -> float:
    """The factor >= 0 on a departure from the constant (n, C) that makes the loss least.

    Args:
        task: loss and constant prediction.
        prediction: float64 (n, C), a departure from the constant.
        y: float32 (n, columns), targets.
    """
    return float(stacking_weights(task, prediction[None], y)[0])


def stacking_weights(
    task: Objective, predictions: np.ndarray, y: np.ndarray, steps: int = 40
) -> np.ndarray:
    """Weights >= 0 of several departures from the constant that make the loss of their sum least.

    Projected gradient with a step that grows while the loss falls and shrinks when it does not; the
    losses used here are convex in the outputs.

    Args:
        task: loss and constant prediction.
        predictions: float64 (T, n, C).
        y: float32 (n, columns).
        steps: most gradient steps.

    Returns:
        weights float64 (T,).
    """
    spread = predictions.std(axis=(1, 2))
    spread = np.where(spread > 1e-12, spread, np.inf)
    basis = torch.from_numpy((predictions / spread[:, None, None]).astype(np.float32))
    constant = torch.from_numpy(task.null.astype(np.float32))
    aim = torch.from_numpy(y)

    def value(w: Tensor) -> tuple[float, Tensor]:
        w = w.detach().requires_grad_()
        loss = task.loss(constant + torch.tensordot(w, basis, 1), aim)
        (slope,) = torch.autograd.grad(loss, w)
        return float(loss.detach()), slope

    weights = torch.zeros(len(basis))
    now, slope = value(weights)
    step = 1.0
    for _ in range(steps):
        tried = (weights - step * slope).clamp(min=0)
        if float((tried - weights).abs().max()) < 1e-3:
            break
        then, tilt = value(tried)
        if then < now:
            weights, now, slope, step = tried, then, tilt, step * 1.7
        else:
            step /= 3
    return weights.double().numpy() / spread
