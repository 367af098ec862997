"""Probes, their weights and the anchor made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.aggregators.network import Lesson, Objective, Shape
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store, gather, whole
from pipeline.distillation.anchor import Anchor
from pipeline.distillation.probe import (
    components,
    fit_probe,
    inner_folds,
    posterior,
    ridge_path,
    stacking_weights,
)

REGRESSION = Objective(
    lambda out, y: F.mse_loss(out, y.to(out.dtype)),
    lambda out, y: float(-0.5 * len(y) * np.log(((out - y) ** 2).mean())),
    np.zeros(1),
)
N = 120


def data(signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 10) of which the first holds y with the given strength, and y (N, 1)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 10))
    y = signal * x[:, :1] + rng.normal(size=(N, 1))
    return x, ((y - y.mean()) / y.std()).astype(np.float32)


def test_ridge_path_equals_the_normal_equations_wide_and_tall() -> None:
    rng = np.random.default_rng(0)
    for n, d, equal in ((8, 20, True), (30, 5, True), (8, 20, False), (30, 5, False)):
        trust = np.ones(d) if equal else rng.uniform(0.2, 1, d)
        x, r = rng.normal(size=(n, d)), rng.normal(size=(n, 2))
        mean, deviation, (weights,) = ridge_path(x, r - r.mean(0), (0.7,), trust)
        z = np.clip((x - mean) / deviation, -5, 5)
        prior = n * 0.7 * np.diag(trust**-2.0)
        expected = np.linalg.solve(z.T @ z + prior, z.T @ (r - r.mean(0)))
        np.testing.assert_allclose(weights, expected, atol=1e-10)


def test_out_of_fold_predictions_of_noise_prove_nothing() -> None:
    """In-sample, a probe of pure noise looks good; out of fold it must not."""
    x, y = data(0.0)
    strata = np.zeros(N, np.int64)
    args = (np.ones(N, bool), strata, y, REGRESSION, np.random.default_rng(0))
    noise = fit_probe(x, *args)
    x, y = data(1.5)
    args = (np.ones(N, bool), strata, y, REGRESSION, np.random.default_rng(0))
    signal = fit_probe(x, *args)
    assert noise is not None
    assert signal is not None
    assert noise.evidence < 3
    assert signal.evidence > 20
    assert np.corrcoef(signal.out_of_fold[:, 0], y[:, 0])[0, 1] > 0.6


def test_the_weak_teacher_gets_little_weight_and_a_copy_adds_nothing() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(size=(N, 1)).astype(np.float32)
    strong, weak = y * 0.8 + rng.normal(size=(N, 1)) * 0.3, rng.normal(size=(N, 1))
    weights = stacking_weights(REGRESSION, np.stack([strong, weak]), y, steps=200)
    assert weights[0] > 10 * weights[1]
    twice = stacking_weights(REGRESSION, np.stack([strong, strong]), y, steps=200)
    assert twice.sum() == pytest.approx(weights[0], abs=0.05)
    assert (stacking_weights(REGRESSION, np.stack([-strong]), y) == 0).all()


def test_inner_folds_spread_strata_and_posterior_sums_to_one() -> None:
    strata = np.repeat([0, 1], [30, 10])
    fold = inner_folds(strata, np.random.default_rng(0))
    assert [int((strata[fold == k] == 1).sum()) for k in range(5)] == [2] * 5
    weights = posterior(np.array([-1000.0, -1001.0]))
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > weights[1]


def test_a_teacher_that_few_cases_have_is_not_probed() -> None:
    x, y = data(1.0)
    has = np.arange(N) < 9
    args = (np.zeros(N, np.int64), y, REGRESSION, np.random.default_rng(0))
    assert fit_probe(x, has, *args) is None


def test_anchor_predicts_what_its_probes_say_and_hides_train_cases_own_labels(
    make_store: Callable[..., Store],
) -> None:
    x, y = data(1.5)
    weak = np.random.default_rng(9).normal(size=(N, 4))
    present = np.ones((N, 2), bool)
    present[5, 1] = False
    store = make_store([{"high": x}, {"high": weak}], present)
    shape = Shape(("strong", "weak"), ({"high": 10}, {"high": 4}), 1)
    scaler, anchor = Scaler(shape.dims), Anchor(shape, ("high",))
    train = np.arange(90)
    lesson = Lesson(store, train, y, np.zeros(90, np.int64), REGRESSION, True, 0)
    scaler.fit(store, train)
    anchor.fit(lesson, scaler)
    batch = gather(store, whole(store, list(range(N)), None))
    said = anchor(scaler(batch), batch)[:, 0].numpy()
    held = anchor.unseen(batch)[:, 0].numpy()
    assert np.corrcoef(said[90:], y[90:, 0])[0, 1] > 0.6
    assert anchor.readings["strong"]["spread"] > 4 * anchor.readings["weak"]["spread"]
    # In-sample predictions know the label a little; out-of-fold ones must know it less.
    fit = np.abs(said[:90] - y[:90, 0]).mean()
    assert np.abs(held[:90] - y[:90, 0]).mean() > fit
    other = y.copy()
    other[90:] = -other[90:]
    again = Anchor(shape, ("high",))
    again.fit(Lesson(store, train, other, lesson.strata, REGRESSION, True, 0), scaler)
    assert torch.equal(again(scaler(batch), batch)[:, 0], torch.from_numpy(said))


def test_components_are_of_unit_size_and_the_maps_lead_to_them() -> None:
    rng = np.random.default_rng(0)
    z = [rng.normal(size=(30, 6)), 3 * rng.normal(size=(30, 50))]
    leading, maps = components(z)
    assert leading.shape == (30, 10)  # a third of the cases
    np.testing.assert_allclose(leading.T @ leading / 30, np.eye(10), atol=1e-9)
    np.testing.assert_allclose(z[0] @ maps[0] + z[1] @ maps[1], leading, atol=1e-9)


def test_both_is_the_mean_of_the_probes_apart_and_together(
    make_store: Callable[..., Store],
) -> None:
    rng = np.random.default_rng(0)
    x, y = data(1.5)
    present = np.ones((N, 2), bool)
    present[::9, 1] = False
    store = make_store([{"high": x[:, :5]}, {"high": rng.normal(size=(N, 8))}], present)
    shape = Shape(("a", "b"), ({"high": 5}, {"high": 8}), 1)
    scaler = Scaler(shape.dims)
    train = np.arange(60)
    scaler.fit(store, train)
    lesson = Lesson(store, train, y, np.zeros(60, np.int64), REGRESSION, True, 0)
    batch = gather(store, whole(store, list(range(N)), None))
    said, held = {}, {}
    for kind in ("stacked", "joint", "both"):
        anchor = Anchor(shape, ("high",), kind)  # type: ignore[arg-type]
        anchor.fit(lesson, scaler)
        said[kind] = anchor(scaler(batch), batch)[:, 0].numpy()
        held[kind] = anchor.unseen(batch)[:60, 0].numpy()
        assert np.corrcoef(said[kind][60:], y[60:, 0])[0, 1] > 0.6
        assert np.corrcoef(held[kind], y[:60, 0])[0, 1] > 0.5
    for found in (said, held):
        middle = (found["stacked"] + found["joint"]) / 2
        np.testing.assert_allclose(found["both"], middle, rtol=1e-4, atol=1e-5)
    assert not np.allclose(said["stacked"], said["joint"], atol=0.01)
