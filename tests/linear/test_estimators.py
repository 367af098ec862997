"""Penalised linear models: what they minimise, and how the penalty is chosen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from pipeline.aggregators.network import Objective
from pipeline.config.tasks import ClassificationTask, SurvivalTask
from pipeline.contracts.labels import Labels
from pipeline.linear import estimators
from pipeline.linear.estimators import PENALTIES, fit, parts
from pipeline.training.loop import objective
from pipeline.training.tasks import fit_head

N, D = 90, 120


@pytest.fixture
def x() -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(N, D)) / np.sqrt(D)
    return np.asarray(values - values.mean(0))


def squared(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((out - y) ** 2).mean()


REGRESSION = Objective("regression", squared)


def numbers(x: np.ndarray, noise: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    signal = x @ rng.normal(size=(D, 2))
    return (signal + noise * rng.normal(size=signal.shape)).astype(np.float32)


def test_the_ridge_is_that_of_scikit_learn_at_the_chosen_penalty(x: np.ndarray) -> None:
    y = numbers(x, 0.5)
    found, penalty = fit(x, y, REGRESSION, np.arange(N) % 2, np.arange(N), 0)
    direct = Ridge(penalty * N).fit(x, y)
    np.testing.assert_allclose(found(x), direct.predict(x), atol=1e-6)


def test_noise_is_penalised_more_than_signal(x: np.ndarray) -> None:
    strata, groups = np.zeros(N, int), np.arange(N)
    _, clear = fit(x, numbers(x, 0.01), REGRESSION, strata, groups, 0)
    _, noise = fit(x, numbers(x, 100.0), REGRESSION, strata, groups, 0)
    assert 10 * clear < noise


@pytest.mark.parametrize("classes", [2, 3])
def test_the_logistic_regression_is_that_of_scikit_learn(x: np.ndarray, classes: int) -> None:
    rng = np.random.default_rng(2)
    label = (x @ rng.normal(size=(D, classes)) + 0.3 * rng.normal(size=(N, classes))).argmax(1)
    task = ClassificationTask(type="classification", label="a")
    labels = Labels(tuple(map(str, range(N))), {}, classes=tuple("abc"[:classes]), label=label)
    head = fit_head(task, labels, np.arange(N))
    y = head.targets(labels)
    found, penalty = fit(x, y, objective(head), head.strata(y), np.arange(N), 0)
    share = np.bincount(label) / N
    direct = LogisticRegression(C=1 / (penalty * N), max_iter=5000, tol=1e-8)
    direct.fit(x, label, sample_weight=(1 / (classes * share))[label])
    said = torch.from_numpy(found(x)).softmax(1).numpy()
    np.testing.assert_allclose(said, direct.predict_proba(x), atol=2e-3)
    assert (said.argmax(1) == label).mean() > 1.5 / classes


def test_the_cox_model_ranks_as_one_with_the_squared_norm_alone(x: np.ndarray) -> None:
    rng = np.random.default_rng(3)
    hazard = 3 * x @ rng.normal(size=D)
    time = rng.exponential(np.exp(-hazard))
    event = rng.uniform(size=N) < 0.7
    task = SurvivalTask(type="survival", time="t", event="e", loss="cox")
    labels = Labels(tuple(map(str, range(N))), {}, time=time, event=event)
    head = fit_head(task, labels, np.arange(N))
    y = head.targets(labels)
    found, penalty = fit(x, y, objective(head), head.strata(y), np.arange(N), 0)
    direct = CoxPHSurvivalAnalysis(alpha=penalty * N).fit(x, Surv.from_arrays(event, time))
    assert np.corrcoef(found(x)[:, 0], direct.predict(x))[0, 1] > 0.99
    assert np.corrcoef(found(x)[:, 0], hazard)[0, 1] > 0.5


def test_a_class_that_an_inner_part_lacks_is_out_of_the_question() -> None:
    model = LogisticRegression().fit(np.eye(4), [0, 0, 2, 2])
    linear = estimators._logits(model, 3)
    said = torch.from_numpy(linear(np.eye(4))).softmax(1).numpy()
    assert said[:, 1].max() < 1e-6
    np.testing.assert_allclose(said[:, [0, 2]], model.predict_proba(np.eye(4)), atol=1e-6)


def test_groups_are_never_on_both_sides() -> None:
    groups = np.repeat(np.arange(9), 10)
    strata = np.tile([0, 1], 45)
    dealt = parts(strata, groups, 0)
    assert len(dealt) == estimators.PARTS
    assert sorted(np.concatenate(dealt)) == list(range(90))
    for rows in dealt:
        rest = np.setdiff1d(np.arange(90), rows)
        assert not set(groups[rows]) & set(groups[rest])


def test_without_inner_parts_the_penalty_is_the_middle_one(x: np.ndarray) -> None:
    strata = np.r_[1, np.zeros(N - 1, int)]
    assert parts(strata, np.arange(N), 0) == []
    _, penalty = fit(x, numbers(x, 1.0), REGRESSION, strata, np.arange(N), 0)
    assert penalty == PENALTIES[len(PENALTIES) // 2]


def test_weights_that_would_grow_without_end_are_left_out() -> None:
    time = np.arange(1.0, 13)
    y = np.stack([time, np.ones(12)], axis=1).astype(np.float32)
    x = -1e3 * (time - time.mean())[:, None]
    models = estimators._cox(x, y, np.zeros(0))
    assert 0 < len(models) <= len(PENALTIES)
    assert all(np.isfinite(model.weights).all() for model in models)
