"""Weights of models by what they say of unseen cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pipeline.aggregators.network import Objective
from pipeline.contracts.labels import Labels
from pipeline.linear.stack import NONE, fit_stack, loss_of
from pipeline.training.loop import objective
from pipeline.training.tasks import fit_head
from tests.evaluation.conftest import TASKS

N = 200
FLAT = np.zeros(N, dtype=np.int64)


def squared(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((out - y) ** 2).mean()


REGRESSION = Objective("regression", squared)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def said(y: np.ndarray, *noise: float) -> np.ndarray:
    """(n, M, 1): the truth with noise of its own for each member."""
    rng = np.random.default_rng(1)
    return np.stack([y[:, :1] + each * rng.normal(size=(len(y), 1)) for each in noise], axis=1)


def test_the_better_member_weighs_more_and_a_useless_one_next_to_nothing(
    rng: np.random.Generator,
) -> None:
    y = rng.normal(size=(N, 1)).astype(np.float32)
    found = fit_stack(
        said(y, 0.3, 1.0, 50.0), np.zeros((N, 0)), y, REGRESSION, FLAT, np.arange(N), 0
    )
    good, worse, useless = found.members
    assert good > 3 * worse > 0 and 50 * useless < 0.2


def test_no_member_counts_against_itself(rng: np.random.Generator) -> None:
    y = rng.normal(size=(N, 1)).astype(np.float32)
    found = fit_stack(-said(y, 0.5), np.zeros((N, 0)), y, REGRESSION, FLAT, np.arange(N), 0)
    assert found.members.tolist() == [0.0]


def test_least_squares_without_a_penalty(rng: np.random.Generator) -> None:
    y = rng.normal(size=(N, 1)).astype(np.float32)
    z, x = said(y, 0.5, 0.8), rng.normal(size=(N, 2)) + y
    found = fit_stack(z, x, y, REGRESSION, FLAT, FLAT, 0, NONE)
    wanted, *_ = np.linalg.lstsq(np.hstack([z[:, :, 0], x, np.ones((N, 1))]), y, rcond=None)
    told = np.concatenate([found.members, found.covariates[:, 0], found.constant])
    np.testing.assert_allclose(told, wanted[:, 0], atol=2e-3)


def test_the_logistic_regression_is_that_of_scikit_learn(rng: np.random.Generator) -> None:
    x = rng.normal(size=(N, 2))
    label = (x[:, 0] + rng.logistic(size=N) > 0).astype(np.int64)
    task = TASKS["classification"].model_copy(update={"class_weights": False})
    labels = Labels(tuple(map(str, range(N))), {}, classes=("a", "b"), label=label)
    head = fit_head(task, labels, np.arange(N))
    y = head.targets(labels)
    z = np.zeros((N, 0, 2))
    found = fit_stack(z, x, y, objective(head), FLAT, FLAT, 0, NONE)
    plain = LogisticRegression(C=1e6).fit(x, label)
    log_odds = np.diff(found(z, x), axis=1)[:, 0]
    np.testing.assert_allclose(log_odds, plain.decision_function(x), atol=2e-2)


def test_hazards_are_those_of_cox(rng: np.random.Generator) -> None:
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.util import Surv

    x = rng.normal(size=(N, 2))
    time = rng.exponential(np.exp(-x[:, 0])) + 0.01
    event = rng.random(N) < 0.7
    labels = Labels(tuple(map(str, range(N))), {}, time=time, event=event)
    head = fit_head(TASKS["survival"], labels, np.arange(N))
    z = np.zeros((N, 0, 1))
    found = fit_stack(z, x, head.targets(labels), objective(head), FLAT, FLAT, 0, NONE)
    plain = CoxPHSurvivalAnalysis(ties="efron").fit(x, Surv.from_arrays(event, time))
    np.testing.assert_allclose(found.covariates[:, 0], plain.coef_, atol=5e-3)


def test_the_penalty_is_heavier_where_there_is_less_to_learn(rng: np.random.Generator) -> None:
    x = rng.normal(size=(N, 8))
    clear = (x[:, :1] + 0.1 * rng.normal(size=(N, 1))).astype(np.float32)
    noise = rng.normal(size=(N, 1)).astype(np.float32)
    z = np.zeros((N, 0, 1))
    penalties = [
        fit_stack(z, x, y, REGRESSION, FLAT, np.arange(N), 0).penalty for y in (clear, noise)
    ]
    assert 10 * penalties[0] < penalties[1]


def test_a_member_that_says_one_thing_of_all_cases_is_left_out(rng: np.random.Generator) -> None:
    y = rng.normal(size=(N, 1)).astype(np.float32)
    z = np.concatenate([said(y, 0.3), np.full((N, 1, 1), 7.0)], axis=1)
    found = fit_stack(z, np.zeros((N, 0)), y, REGRESSION, FLAT, np.arange(N), 0)
    assert found.members[1] == 0
    assert loss_of(found, z, np.zeros((N, 0)), y, REGRESSION) < 0.2
