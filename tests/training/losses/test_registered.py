"""What holds for every loss that is registered, a new one included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from pipeline.config.models import distillation_losses
from pipeline.config.registry import entries
from pipeline.config.tasks import LOSSES, TYPES, TaskConfig, default_loss, losses
from pipeline.contracts.labels import Labels
from pipeline.training.head import Head
from pipeline.training.tasks import fit_head, from_facts

N = 40
KEYS: dict[str, dict[str, Any]] = {
    "survival": {"time": "t", "event": "e"},
    "classification": {"label": "l"},
    "regression": {"targets": ["p", "q"]},
}


def fitted(name: str) -> tuple[Head, np.ndarray]:
    """The head of a loss and the targets of N cases."""
    kind = entries(LOSSES)[name].task
    rng = np.random.default_rng(0)
    cases = tuple(f"c{i:02d}" for i in range(N))
    labels = {
        "survival": Labels(cases, {}, time=rng.exponential(20, N), event=np.arange(N) % 3 > 0),
        "classification": Labels(cases, {}, classes=("x", "y", "z"), label=np.arange(N) % 4 % 3),
        "regression": Labels(cases, {}, targets=rng.normal([5, -100], [2, 30], (N, 2))),
    }[kind]
    task = TypeAdapter(TaskConfig).validate_python({"type": kind, "loss": name, **KEYS[kind]})
    head = fit_head(task, labels, np.arange(N))
    return head, head.targets(labels)


def drawn(head: Head, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, head.outputs, generator=generator, requires_grad=True)


every = pytest.mark.parametrize("name", entries(LOSSES))


@every
def test_it_is_for_a_type_of_tasks_that_has_a_default(name: str) -> None:
    kind = entries(LOSSES)[name].task
    assert kind in TYPES
    assert default_loss(kind) in losses(kind)


@every
def test_value_and_gradient_are_finite_even_for_large_outputs(name: str) -> None:
    head, y = fitted(name)
    for scale in (1.0, 300.0):
        out = drawn(head)
        value = head.loss(out * scale, torch.from_numpy(y))
        assert value.shape == ()
        (slope,) = torch.autograd.grad(value, out)
        assert torch.isfinite(value) and torch.isfinite(slope).all() and slope.any()


@every
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    head, y = fitted(name)
    out, turned = drawn(head), np.random.default_rng(1).permutation(N)
    there = head.loss(out, torch.from_numpy(y)).item()
    back = head.loss(out[turned], torch.from_numpy(y[turned])).item()
    assert there == pytest.approx(back, rel=1e-5)


@every
def test_following_it_makes_the_validation_metric_better(name: str) -> None:
    """It teaches what the task is measured by."""
    head, y = fitted(name)
    out = drawn(head)
    before = head.metric(out.detach().numpy(), y)
    optimiser = torch.optim.Adam([out], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        head.loss(out, torch.from_numpy(y)).backward()
        optimiser.step()
    assert head.metric(out.detach().numpy(), y) > max(before, 0.75)


@every
def test_the_head_is_made_again_of_its_facts(name: str) -> None:
    head, y = fitted(name)
    again, out = from_facts(head.facts()), drawn(head)
    assert again.facts() == head.facts()
    assert torch.equal(again.loss(out, torch.from_numpy(y)), head.loss(out, torch.from_numpy(y)))


distilled = pytest.mark.parametrize("name", distillation_losses())


@distilled
def test_agreement_costs_nothing_and_disagreement_something(name: str) -> None:
    cost: Callable[..., Tensor] = distillation_losses()[name].load()
    target, used = torch.randn(2, 6, 3, 5)[0], torch.full((3,), 5)
    assert cost(target, target, used).abs().max() < 1e-5
    other = torch.randn(6, 3, 5, requires_grad=True)
    apart = cost(other, target, used)
    assert apart.shape == (6, 3) and (apart > 0).all()
    (slope,) = torch.autograd.grad(apart.sum(), other)
    assert torch.isfinite(slope).all()


@distilled
def test_numbers_that_a_pair_does_not_use_change_nothing(name: str) -> None:
    cost = distillation_losses()[name].load()
    student, target = torch.randn(2, 6, 1, 4)
    narrow = cost(student, target, torch.tensor([4]))
    padded = [torch.cat([x, torch.zeros(6, 1, 3)], dim=2) for x in (student, target)]
    assert torch.allclose(cost(*padded, torch.tensor([4])), narrow, atol=1e-6)
