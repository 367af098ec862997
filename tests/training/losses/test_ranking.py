"""The ranking loss against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.training.losses.ranking import ranking
from pipeline.training.metrics import concordance


def test_it_is_the_mean_over_comparable_pairs() -> None:
    time = torch.tensor([3.0, 1.0, 3.0, 2.0, 5.0])
    event = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0])
    risk = torch.tensor([0.3, -1.0, 0.7, 2.0, 0.1])
    # 1 is before all others; 0 is before 4, and before 2, which was censored at the same time.
    pairs = [(1, 0), (1, 2), (1, 3), (1, 4), (0, 4), (0, 2)]
    costs = [np.log1p(np.exp(float(risk[late] - risk[early]))) for early, late in pairs]
    assert float(ranking(risk, time, event)) == pytest.approx(np.mean(costs), rel=1e-6)


def test_following_it_raises_the_concordance() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(60, 3)).astype(np.float32))
    time = torch.exp(-x[:, 0]) + 0.1 * torch.rand(60)
    event = torch.from_numpy((rng.random(60) < 0.7).astype(np.float32))
    weights = torch.zeros(3, requires_grad=True)
    for _ in range(200):
        (slope,) = torch.autograd.grad(ranking(x @ weights, time, event), weights)
        weights = (weights - slope).detach().requires_grad_()
    risk = (x @ weights).detach().numpy()
    assert concordance(risk, time.numpy(), event.numpy()) > 0.95


def test_large_risks_stay_finite_and_a_batch_must_have_an_event() -> None:
    time, event = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.0])
    assert float(ranking(torch.tensor([-500.0, 500.0]), time, event)) == 1000
    assert float(ranking(torch.tensor([1.0, 2.0]), time.flip(0), event)) == 0
    with pytest.raises(ValueError, match="without an event"):
        ranking(torch.zeros(2), time, torch.zeros(2))
