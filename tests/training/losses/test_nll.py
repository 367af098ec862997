"""Discrete-time survival."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.losses import nll


def test_edges_come_from_the_events_given_and_bins_are_one_based() -> None:
    time = np.array([10.0, 20, 30, 40, 1000, 2000])
    event = np.array([True, True, True, True, False, False])
    edges = nll.fit_edges(time, event, 4)
    assert edges.tolist() == [17.5, 25.0, 32.5]
    assert nll.to_bins(np.array([0, 17.4, 17.5, 25, 40, 1e9]), edges).tolist() == [1, 1, 2, 3, 4, 4]


def test_few_events_use_all_times_and_tied_edges_merge() -> None:
    time, none = np.array([1.0, 2, 3, 4, 5]), np.zeros(5, bool)
    assert len(nll.fit_edges(time, none, 4)) == 3
    tied = nll.fit_edges(np.full(8, 3.0), np.ones(8, bool), 4)
    assert tied.tolist() == [3.0]


def naive(logits: np.ndarray, y: int, event: int, alpha: float) -> float:
    h = 1 / (1 + np.exp(-logits))
    s = np.concatenate([[1.0], np.cumprod(1 - h)])
    ev = -event * (np.log(s[y - 1]) + np.log(h[y - 1]))
    cens = -(1 - event) * np.log(s[y])
    return (1 - alpha) * (ev + cens) + alpha * ev


@settings(max_examples=30, deadline=None)
@given(bins=st.integers(2, 6), alpha=st.floats(0, 1), seed=st.integers(0, 999))
def test_loss_equals_the_definition(bins: int, alpha: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(7, bins)) * 2
    y, event = rng.integers(1, bins + 1, 7), rng.integers(0, 2, 7)
    ours = nll.nll_loss(torch.tensor(logits), torch.tensor(y), torch.tensor(event), alpha)
    expected = np.mean([naive(logits[i], y[i], event[i], alpha) for i in range(7)])
    assert float(ours) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_extreme_logits_stay_finite_in_half_precision() -> None:
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], requires_grad=True)
    loss = nll.nll_loss(logits.half().float(), torch.tensor([2, 1]), torch.tensor([1, 0]), 0.4)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_survival_falls_and_risk_rises_with_the_hazard() -> None:
    logits = torch.tensor([[-2.0, -2.0, -2.0], [1.0, 1.0, 1.0]])
    survival = nll.survival(logits)
    assert (survival.diff(dim=1) < 0).all()
    risk = nll.risk(logits)
    assert risk[1] > risk[0]


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_constant_logits_are_the_minimum(alpha: float) -> None:
    rng = np.random.default_rng(1)
    bins, event = rng.integers(1, 5, 400), rng.integers(0, 2, 400)
    best = nll.constant_logits(bins, event, 4, alpha)

    def loss(logits: np.ndarray) -> float:
        out = torch.tensor(np.tile(logits, (400, 1)))
        return float(nll.nll_loss(out, torch.tensor(bins), torch.tensor(event), alpha))

    for k in range(4):
        for step in (-0.1, 0.1):
            moved = best.copy()
            moved[k] += step
            assert loss(moved) > loss(best)
