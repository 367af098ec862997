"""A linear model of cases: what it reads, and what it makes of missing teachers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pipeline.aggregators.network import Endpoint, Lesson, Objective, Shape, parameter_count
from pipeline.bags.store import Store, gather, whole
from pipeline.config.models import LinearModel
from pipeline.linear.linear import LinearOfCases
from pipeline.linear.summaries import mean, mean_and_deviation
from pipeline.training.predict import Batches, predict
from tests.distillation.kinds import CASES, DIMS, REGRESSION, bags, store_of

LEARN = np.arange(60)


def fitted(store: Store, y: np.ndarray, task: Objective = REGRESSION, **cfg: str) -> LinearOfCases:
    model = LinearOfCases(
        Shape(("t0", "t1"), DIMS, y.shape[1]),
        LinearModel.model_validate({"kind": "linear", **cfg}),
    )
    lesson = Lesson(
        store=store,
        train=LEARN,
        y=y.astype(np.float32),
        strata=np.zeros(len(LEARN), np.int64),
        groups=LEARN,
        task=task,
        bags=lambda cases: Batches(store, cases, None),
        standardise=True,
        seed=0,
    )
    model.fit(lesson)
    return model


@pytest.fixture(scope="module")
def cohort() -> tuple[Store, np.ndarray, np.ndarray]:
    """Bags, a number that their means tell, and one that only their deviations tell."""
    features, share = bags()
    store = store_of(features)
    means = np.concatenate([store.means(t, "high") for t in range(2)], axis=1)
    number = means @ np.linspace(-1, 1, means.shape[1])
    return store, (number / number.std())[:, None], (share / share.std())[:, None]


def explained(model: LinearOfCases, store: Store, y: np.ndarray) -> float:
    rest = np.arange(len(LEARN), CASES)
    out = predict(model, store, rest, None)
    return float(1 - ((out - y[rest]) ** 2).mean() / y[rest].var())


def test_it_learns_what_means_tell_and_says_it_of_other_cases(
    cohort: tuple[Store, np.ndarray, np.ndarray],
) -> None:
    store, number, _ = cohort
    model = fitted(store, number - number[LEARN].mean())
    assert explained(model, store, number - number[LEARN].mean()) > 0.95
    assert parameter_count(model) == 6 + 9 + 1
    assert not model.learns_by_gradient


def test_deviations_tell_what_cancels_out_in_the_mean(
    cohort: tuple[Store, np.ndarray, np.ndarray],
) -> None:
    store, _, share = cohort
    share = share - share[LEARN].mean()
    assert explained(fitted(store, share), store, share) < 0.2
    assert explained(fitted(store, share, statistics="mean_deviation"), store, share) > 0.6


def test_a_missing_teacher_counts_as_the_mean_of_the_training_cases(
    cohort: tuple[Store, np.ndarray, np.ndarray],
) -> None:
    store, number, _ = cohort
    model = fitted(store, number)
    batch = gather(store, whole(store, [70], None))
    without = dataclasses.replace(
        batch,
        masks=(batch.masks[0], torch.ones_like(batch.masks[1])),
        present=torch.tensor([[True, False]]),
    )
    other = dataclasses.replace(
        without,
        features=(batch.features[0], {"high": 99 + batch.features[1]["high"]}),
    )
    assert torch.equal(model(without).out, model(other).out)
    part = model._standardised(model._statistics(batch), batch.present)[:, :6]
    expected = part @ model.weight[:6] + model.constant
    torch.testing.assert_close(model(without).out, expected)


def test_nothing_is_learned_from_cases_outside_the_training_part(
    cohort: tuple[Store, np.ndarray, np.ndarray],
) -> None:
    store, number, _ = cohort
    changed = number.copy()
    changed[len(LEARN) :] = 99
    one, two = fitted(store, number), fitted(store, changed)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_each_endpoint_is_fitted_to_the_cases_that_have_its_label(
    cohort: tuple[Store, np.ndarray, np.ndarray],
) -> None:
    store, number, share = cohort
    both = np.concatenate([number, share], axis=1)
    both[3:20, 1] = np.nan
    ends = tuple(
        Endpoint(name, REGRESSION, slice(i, i + 1), slice(i, i + 1))
        for i, name in enumerate(("", "second"))
    )
    model = fitted(store, both, Objective("regression", REGRESSION.loss, endpoints=ends))
    alone = fitted(store, number)
    torch.testing.assert_close(model.weight[:, :1], alone.weight)
    assert set(model.facts()["penalties"]) == {"", "second"}
    assert torch.isfinite(model.weight).all()


def test_statistics_pass_over_padding() -> None:
    x = torch.randn(2, 5, 3)
    mask = torch.tensor([[False] * 5, [False, False, True, True, True]])
    noisy = torch.where(mask[..., None], 1e3, x)
    for summary in (mean, mean_and_deviation):
        assert torch.equal(summary(x, mask, None), summary(noisy, mask, None))
    told = mean_and_deviation(x, mask, None)
    np.testing.assert_allclose(told[1, :3], x[1, :2].mean(0), atol=1e-6)
    np.testing.assert_allclose(told[1, 3:], x[1, :2].std(0, unbiased=False), atol=1e-4)
