"""What probes say of an endpoint, and of endpoints that lean on others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.aggregators.network import Endpoint, Lesson, Objective, Shape
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store, gather, whole
from pipeline.distillation.anchor import Anchor
from pipeline.distillation.ground import (
    PROTOTYPE_SHARES,
    Ground,
    View,
    _believed,
    fit_ground,
    lean,
    lectern,
)
from pipeline.distillation.probe import working_response

REGRESSION = Objective(
    lambda out, y: F.mse_loss(out, y.to(out.dtype)),
    lambda out, y: float(-0.5 * len(y) * np.log(((out - y) ** 2).mean())),
    np.zeros(1),
)
N, LEARNED = 400, 60


def cohort(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, 40), a noisy label and a clear one (N, 1) that share a hidden state, and it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 40))
    state = x[:, :8].sum(axis=1, keepdims=True) / np.sqrt(8)
    noisy = state + 2 * rng.normal(size=(N, 1))
    clear = -state + 0.2 * rng.normal(size=(N, 1))
    return x, scaled(noisy), scaled(clear), state[:, 0]


def scaled(y: np.ndarray) -> np.ndarray:
    return ((y - y.mean()) / y.std()).astype(np.float32)


def ground(x: np.ndarray, y: np.ndarray) -> Ground:
    rows = len(y)
    desk = lectern({0: x[:rows]}, {0: np.ones(rows, bool)}, np.zeros(rows, np.int64))
    assert desk is not None
    found = fit_ground(desk, y, REGRESSION, "both", np.random.default_rng(0))
    assert found is not None
    return found


def agreement(found: Ground, x: np.ndarray, state: np.ndarray) -> float:
    said = (found.constant + x[LEARNED:] @ found.slopes[0])[:, 0]
    return float(np.corrcoef(said, state[LEARNED:])[0, 1])


def test_a_noisy_endpoint_leans_on_a_clear_one_and_not_on_chance() -> None:
    x, noisy, clear, state = cohort()
    own = ground(x, noisy[:LEARNED])
    chance = np.random.default_rng(3).normal(size=(LEARNED, 1)).astype(np.float32)
    others = [(ground(x, aims), REGRESSION, aims) for aims in (clear[:LEARNED], chance)]
    strata, rng = np.zeros(LEARNED, np.int64), np.random.default_rng(0)
    whole, weights = lean(own, others, noisy[:LEARNED], REGRESSION, strata, rng)
    assert agreement(whole, x, state) > agreement(own, x, state) + 0.1
    spread = [w * g.held.std() for w, (g, _, _) in zip(weights, others, strict=True)]
    assert spread[0] > 4 * spread[1]
    alone, _ = lean(own, others[1:], noisy[:LEARNED], REGRESSION, strata, rng)
    assert agreement(alone, x, state) > agreement(own, x, state) - 0.1


def test_cases_without_a_label_are_predicted_by_probes_that_never_saw_it() -> None:
    x, _, clear, _ = cohort()
    some = clear[:LEARNED].copy()
    some[::3] = np.nan
    found = ground(x, some)
    unknown = np.isnan(some[:, 0])
    assert np.isfinite(found.held).all()
    assert np.corrcoef(found.held[unknown, 0], clear[:LEARNED][unknown, 0])[0, 1] > 0.3
    none = np.full_like(some, np.nan)
    desk = lectern({0: x[:LEARNED]}, {0: np.ones(LEARNED, bool)}, np.zeros(LEARNED, np.int64))
    assert desk is not None
    assert fit_ground(desk, none, REGRESSION, "both", np.random.default_rng(0)) is None
    assert lectern({0: x[:9]}, {0: np.ones(9, bool)}, np.zeros(9, np.int64)) is None


def test_outputs_that_ask_one_question_are_drawn_to_their_mean() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(30, 3)).astype(np.float32)
    apart = dataclasses.replace(REGRESSION, null=np.zeros(3))
    free = working_response(apart, y)
    drawn = working_response(dataclasses.replace(apart, one_question=True), y)
    np.testing.assert_allclose(drawn.mean(1), free.mean(1), atol=1e-6)
    np.testing.assert_allclose(drawn, (free + free.mean(1, keepdims=True)) / 2)


@pytest.mark.parametrize("beside", [False, True])
def test_the_anchor_predicts_every_endpoint_and_says_what_it_leans_on(
    make_store: Callable[..., Store], beside: bool
) -> None:
    x, noisy, clear, state = cohort()
    store = make_store([{"high": x}], np.ones((N, 1), bool))
    train = np.arange(LEARNED)
    y, task = noisy, REGRESSION
    if beside:
        y = np.concatenate([noisy, clear], axis=1)
        y[::7, 1] = np.nan
        parts = [slice(0, 1), slice(1, 2)]
        ends = [Endpoint(n, REGRESSION, p, p) for n, p in zip(("", "clear"), parts, strict=True)]
        task = Objective(REGRESSION.loss, REGRESSION.evidence, np.zeros(2), False, tuple(ends))
    shape = Shape(("t0",), ({"high": 40},), y.shape[1])
    scaler, anchor = Scaler(shape.dims), Anchor(shape, ("high",))
    scaler.fit(store, train)
    anchor.fit(Lesson(store, train, y, np.zeros(LEARNED, np.int64), task, True, 0), scaler)
    batch = gather(store, whole(store, list(range(N)), None))
    said = anchor(scaler(batch), batch).numpy()
    unseen = anchor.unseen(batch)
    assert said.shape == unseen.shape == (N, y.shape[1])
    assert torch.isfinite(unseen).all()
    agreed = np.corrcoef(said[LEARNED:, 0], state[LEARNED:])[0, 1]
    if beside:
        assert anchor.facts()["auxiliary"]["clear"] > 0
        assert agreed > 0.6
        assert np.corrcoef(said[LEARNED:, 1], clear[LEARNED:, 0])[0, 1] > 0.6
    else:
        assert "auxiliary" not in anchor.facts()
        assert agreed < 0.6


@pytest.mark.parametrize("clear", [True, False])
def test_the_teachers_own_probes_must_prove_that_they_add_something(clear: bool) -> None:
    """Beside canonical variates: what they seem to add could be chance."""
    rng = np.random.default_rng(1)
    y = scaled(rng.normal(size=(LEARNED, 1)))
    rough = y + rng.normal(size=(2, LEARNED, 1))
    own = y + (0.5 if clear else 2.0) * rng.normal(size=(LEARNED, 1))
    known = np.ones(LEARNED, dtype=bool)
    options = [[own, *rough], [0 * own, *rough]]
    reserved = _believed(REGRESSION, options, known, y).sum(axis=0)
    free = _believed(REGRESSION, options[:1], known, y)[0]
    assert free[0] > 0
    if clear:
        np.testing.assert_allclose(reserved, free, atol=0.01)
    else:
        assert reserved[0] < 0.2 * free[0]


def test_a_teacher_without_variates_need_not_prove_more_than_any_other_part() -> None:
    """Such as a slide encoder beside teachers of tiles that say nothing."""
    x, noisy, _, _ = cohort()
    rng = np.random.default_rng(5)
    z = {
        0: rng.normal(size=(LEARNED, 20)),
        1: x[:LEARNED],
        PROTOTYPE_SHARES: rng.normal(size=(LEARNED, 8)),
    }
    has = dict.fromkeys(z, np.ones(LEARNED, dtype=bool))
    strata = np.zeros(LEARNED, np.int64)
    faint = scaled(noisy[:LEARNED] + rng.normal(size=(LEARNED, 1)))
    says = []
    for maps in ({0: None}, {0: None, 1: np.zeros((40, 20))}):
        desk = lectern(z, has, strata, [View(z[0], maps)])
        assert desk is not None
        found = fit_ground(desk, faint, REGRESSION, "all", np.random.default_rng(0))
        assert found is not None
        says.append(float(np.abs(found.slopes[1]).sum()))
    assert says[0] > 2 * says[1] > 0
