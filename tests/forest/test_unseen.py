"""Answers of forests to cases that they have not seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from pipeline.aggregators.network import Objective, TaskType
from pipeline.forest import unseen
from pipeline.forest.unseen import answers_unseen

CASES = 150


def objective(type_: TaskType) -> Objective:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("a forest has a criterion of its own")

    return Objective(type_, loss, (1.0, 1.0) if type_ == "classification" else ())


def cohort(type_: TaskType) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, targets and strata, and what decides the targets: a feature that is near
    its mean, of which no linear model sees anything."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(CASES, 3))
    state = (np.abs(x[:, 0]) < 0.67).astype(float)
    if type_ == "survival":
        time = rng.exponential(np.exp(-3 * state))
        y = np.stack([time, np.ones(CASES)], axis=1)
    else:
        y = state[:, None]
    strata = state.astype(np.int64) if type_ == "classification" else np.ones(CASES, np.int64)
    return x, y.astype(np.float32), strata, state


def ask(type_: TaskType, x: np.ndarray, y: np.ndarray, strata: np.ndarray) -> np.ndarray | None:
    return answers_unseen(x, y, objective(type_), strata, np.arange(len(x)), 3)


@pytest.mark.parametrize("type_", ["classification", "regression", "survival"])
def test_it_sees_what_no_linear_model_sees(type_: TaskType) -> None:
    x, y, strata, state = cohort(type_)
    said = ask(type_, x, y, strata)
    assert said is not None and np.isfinite(said).all()
    assert said.shape == (CASES, 2 if type_ == "classification" else 1)
    assert spearmanr(said[:, -1], state)[0] > 0.4


@pytest.mark.parametrize("type_", ["classification", "regression", "survival"])
def test_no_answer_depends_on_the_case_s_own_label(type_: TaskType) -> None:
    x, y, strata, _ = cohort(type_)
    before = ask(type_, x, y, strata)
    y[7, 0] = 1 - y[7, 0] if type_ == "classification" else 50.0
    after = ask(type_, x, y, strata)
    assert before is not None and after is not None
    np.testing.assert_array_equal(before[7], after[7])
    assert (before != after).any()


def test_too_few_cases_of_a_class_are_not_asked() -> None:
    x, y, strata, _ = cohort("classification")
    strata[:] = 0
    strata[0] = 1
    assert ask("classification", x, y, strata) is None


def test_many_event_times_are_made_few_in_their_order() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.exponential(size=400), rng.random(400) < 0.5
    coarse = unseen._coarse(time, event)
    assert len(np.unique(coarse)) <= unseen.TIMES + 1
    order = np.argsort(time)
    assert (np.diff(coarse[order]) >= 0).all()


def test_probabilities_are_of_all_classes() -> None:
    x, y, strata, _ = cohort("classification")
    said = ask("classification", x, y, strata)
    assert said is not None
    assert torch.tensor(said).exp().sum(1).sub(1).abs().max() < 0.01
