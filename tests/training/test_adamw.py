"""Our AdamW is torch's, and does without what torch's imports."""

from __future__ import annotations

import subprocess
import sys

import torch

from pipeline.training.adamw import AdamW


def weights() -> list[torch.Tensor]:
    drawn = torch.Generator().manual_seed(3)
    shapes = ((7, 5), (5,), (3, 4, 2), (1,))
    return [torch.randn(shape, generator=drawn).requires_grad_() for shape in shapes]


def pull(of: list[torch.Tensor], step: int) -> None:
    """Gradients that differ from step to step, and none of the last weight in some."""
    loss = sum((w * (step + 1) - 0.3).square().mean() for w in of[: 3 + step % 2])
    loss.backward()  # type: ignore[union-attr]


def test_every_step_is_torchs_to_the_last_digit() -> None:
    ours, theirs = weights(), weights()
    optimiser = AdamW([(ours[::2], 0.02), (ours[1::2], 0.0), ([], 0.5)])
    for weight in theirs:
        weight.grad = torch.zeros_like(weight)
    groups = [
        {"params": theirs[::2], "weight_decay": 0.02},
        {"params": theirs[1::2], "weight_decay": 0.0},
    ]
    expected = torch.optim.AdamW(groups, 0.01)
    for step in range(25):
        rate = 0.01 / (1 + step)
        for group in expected.param_groups:
            group["lr"] = rate
        optimiser.clear()
        expected.zero_grad(set_to_none=False)
        pull(ours, step)
        pull(theirs, step)
        optimiser.step(rate)
        expected.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other), f"step {step}"
    assert not torch.equal(ours[0], weights()[0])


def test_a_step_imports_no_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from pipeline.training import stage\n"
        "from pipeline.training.adamw import AdamW\n"
        "optimiser = AdamW([([torch.zeros(2, requires_grad=True)], 0.1)])\n"
        "optimiser.clear(); optimiser.step(0.1)\n"
        "sys.exit(' '.join({'torch._dynamo', 'sklearn', 'sksurv', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, stderr=subprocess.PIPE)
    assert not done.stderr.strip(), f"imported: {done.stderr}"
