"""AdamW on one flat vector."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from pipeline.training.optimiser import AdamW


def reference(
    value: np.ndarray, gradients: list[np.ndarray], rate: float, decay: float
) -> np.ndarray:
    """Loshchilov and Hutter, algorithm 2, one parameter at a time."""
    m, v = np.zeros_like(value), np.zeros_like(value)
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        hat_m, hat_v = m / (1 - 0.9**t), v / (1 - 0.999**t)
        value = value - rate * decay * value - rate * hat_m / (np.sqrt(hat_v) + 1e-8)
    return value


def test_equals_the_algorithm_and_decays_matrices_only() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    start = {n: p.detach().double().numpy().copy() for n, p in layer.named_parameters()}
    optimiser = AdamW(layer.parameters(), 0.05, 0.1)
    seen: dict[str, list[np.ndarray]] = {n: [] for n in start}
    for i in range(5):
        optimiser.zero()
        (layer(torch.full((4, 3), float(i))) ** 2).sum().backward()
        for n, p in layer.named_parameters():
            assert p.grad is not None
            seen[n].append(p.grad.double().numpy().copy())
        optimiser.step()
    for name, parameter in layer.named_parameters():
        expected = reference(start[name], seen[name], 0.05, 0.1 if name == "weight" else 0.0)
        np.testing.assert_allclose(parameter.detach(), expected, atol=2e-6)


def test_snapshot_is_a_copy_and_restores() -> None:
    """The reference's best state was a view: its saved best file was the last epoch."""
    layer = nn.Linear(2, 2)
    optimiser = AdamW(layer.parameters(), 0.1, 0.0)
    before = layer.weight.detach().clone()
    kept = optimiser.snapshot()
    layer(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    assert not torch.equal(layer.weight, before)
    optimiser.restore(kept)
    assert torch.equal(layer.weight, before)


def test_clipping_bounds_the_gradient_not_its_direction() -> None:
    layer = nn.Linear(2, 1, bias=False)
    optimiser = AdamW(layer.parameters(), 0.0, 0.0, clip=1.0)
    (layer(torch.tensor([[300.0, 400.0]])).sum()).backward()
    optimiser.step()
    np.testing.assert_allclose(optimiser.gradient, [0.6, 0.8], atol=1e-4)
