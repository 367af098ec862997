"""AdamW without `torch.optim`.

That imports torch's compiler when an optimiser is first made, which takes longer than to train a
small model. The arithmetic here is torch's own, operation by operation, and so are its results, to
the last digit (`tests/training/test_adamw.py`; `benchmarks/optimiser.py` has the seconds).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

MEAN_KEPT, SQUARE_KEPT, SMALLEST = 0.9, 0.999, 1e-8  # torch's defaults


@dataclasses.dataclass(frozen=True)
class Group:
    """Weights with one decay and one share of the learning rate, and running means of their
    gradients and of their squares."""

    weights: list[Tensor]
    decay: float
    share: float
    means: list[Tensor]
    squares: list[Tensor]


class AdamW:
    """Adam with decay apart from the gradient.

    Source: Loshchilov & Hutter, ICLR 2019, algorithm 2.

    Args:
        groups: weights and their decay. Their gradients are tensors of zeros from here on, not
            None: what a batch does not touch (a teacher that is left out) has a gradient of zero,
            so that its momentum fades.
        shares: of the learning rate, for each group; none: all of it.
    """

    def __init__(
        self, groups: Sequence[tuple[Sequence[Tensor], float]], shares: Sequence[float] = ()
    ) -> None:
        self.groups = []
        for (weights, decay), share in zip(groups, shares or [1.0] * len(groups), strict=True):
            if not weights:
                continue
            for weight in weights:
                weight.grad = torch.zeros_like(weight)
            means, squares = ([torch.zeros_like(w) for w in weights] for _ in range(2))
            self.groups.append(Group(list(weights), decay, share, means, squares))
        self.steps = 0

    def clear(self) -> None:
        """Set all gradients to zero."""
        for group in self.groups:
            torch._foreach_zero_(_gradients(group))

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Change the weights by their gradients.

        Args:
            rate: the learning rate of this step.
        """
        self.steps += 1
        mean_bias = 1 - MEAN_KEPT**self.steps
        square_bias = 1 - SQUARE_KEPT**self.steps
        for group in self.groups:
            slopes, own = _gradients(group), rate * group.share
            if group.decay:
                torch._foreach_mul_(group.weights, 1 - own * group.decay)
            torch._foreach_lerp_(group.means, slopes, 1 - MEAN_KEPT)
            torch._foreach_mul_(group.squares, SQUARE_KEPT)
            torch._foreach_addcmul_(group.squares, slopes, slopes, 1 - SQUARE_KEPT)
            roots = torch._foreach_sqrt(group.squares)
            torch._foreach_div_(roots, square_bias**0.5)
            torch._foreach_add_(roots, SMALLEST)
            torch._foreach_addcdiv_(group.weights, group.means, roots, -own / mean_bias)


def _gradients(group: Group) -> list[Tensor]:
    found = [weight.grad for weight in group.weights]
    assert all(slope is not None for slope in found)
    return [slope for slope in found if slope is not None]
