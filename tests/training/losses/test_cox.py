"""Cox partial likelihood."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.losses.cox import cox


def brute_force(risk: np.ndarray, time: np.ndarray, event: np.ndarray, ties: str) -> float:
    """The textbook's double loop."""
    total = 0.0
    for when in np.unique(time[event > 0]):
        dead = (time == when) & (event > 0)
        at_risk = np.exp(risk[time >= when]).sum()
        for place in range(int(dead.sum())):
            share = place / dead.sum() if ties == "efron" else 0.0
            total += np.log(at_risk - share * np.exp(risk[dead]).sum())
        total -= risk[dead].sum()
    return total / event.sum()


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 20), distinct=st.integers(1, 20), seed=st.integers(0, 999))
def test_equals_the_textbook_with_ties(ties: str, n: int, distinct: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    risk, time = rng.normal(size=n), rng.integers(1, distinct + 1, n).astype(float)
    event = (rng.random(n) < 0.6).astype(float)
    event[0] = 1
    ours = cox(*(torch.tensor(v) for v in (risk, time, event)), ties=ties)  # type: ignore[arg-type]
    assert float(ours) == pytest.approx(brute_force(risk, time, event, ties=ties), abs=2e-5)


def test_a_batch_without_an_event_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="without an event"):
        cox(torch.zeros(3), torch.tensor([1.0, 2, 3]), torch.zeros(3))


@pytest.mark.parametrize("ties", ["breslow", "efron"])
def test_large_risks_do_not_overflow(ties: str) -> None:
    risk = torch.tensor([300.0, -300.0, 250.0, 250.0], requires_grad=True)
    loss = cox(risk, torch.tensor([1.0, 2, 3, 3]), torch.ones(4), ties=ties)  # type: ignore[arg-type]
    loss.backward()
    assert torch.isfinite(loss)
    assert risk.grad is not None
    assert torch.isfinite(risk.grad).all()


def test_order_of_the_batch_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    risk, time = torch.tensor(rng.normal(size=12)), torch.tensor(rng.integers(1, 5, 12))
    event = torch.tensor(rng.integers(0, 2, 12))
    event[0] = 1
    shuffled = torch.tensor(rng.permutation(12))
    a = cox(risk, time, event)
    b = cox(risk[shuffled], time[shuffled], event[shuffled])
    assert float(a) == pytest.approx(float(b), abs=1e-6)


def test_normalised_by_events_so_that_censored_cases_do_not_dilute() -> None:
    risk, time = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 2.0, 3.0])
    one = cox(risk, time, torch.tensor([1.0, 0, 0]))
    early = cox(
        torch.cat([risk, torch.zeros(9)]),
        torch.cat([time, torch.full((9,), 0.5)]),  # censored before the event: not at risk
        torch.tensor([1.0] + [0.0] * 11),
    )
    assert float(one) == pytest.approx(float(early))
