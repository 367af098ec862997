"""AdamW on one flat vector.

All parameters live in one tensor, so that a step is a dozen vector operations whatever the number
of layers. `torch.optim` does the same arithmetic but imports the compiler on first use, which costs
a short job on a small cohort more time than its training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

    Decay acts on matrices only: shrinking biases, norms and tokens has no sense of scale.

    Args:
        parameters: trainable parameters; their storage moves into the flat vector.
        learning_rate: step size; may be changed between steps.
        weight_decay: per unit of learning rate.
        betas, eps: as in the paper.
        clip: largest gradient norm; None: any.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip: float | None = None,
    ) -> None:
        chosen = [p for p in parameters if p.requires_grad]
        sizes = [p.numel() for p in chosen]
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.betas, self.eps, self.clip = betas, eps, clip
        self.values = torch.cat([p.detach().reshape(-1) for p in chosen])
        self.gradient = torch.zeros_like(self.values)
        self.first = torch.zeros_like(self.values)
        self.second = torch.zeros_like(self.values)
        self.decayed = torch.cat(
            [torch.full((n,), float(p.ndim > 1)) for p, n in zip(chosen, sizes, strict=True)]
        ).to(self.values.device)
        self.steps = 0
        places = zip(chosen, self.values.split(sizes), self.gradient.split(sizes), strict=True)
        for parameter, value, gradient in places:
            parameter.data = value.view_as(parameter)
            parameter.grad = gradient.view_as(parameter)

    def zero(self) -> None:
        """Forget the gradient."""
        self.gradient.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradient that has gathered."""
        self.steps += 1
        if self.clip is not None:
            norm = self.gradient.norm()
            self.gradient.mul_((self.clip / (norm + 1e-6)).clamp(max=1.0))
        one, two = self.betas
        self.first.lerp_(self.gradient, 1 - one)
        self.second.mul_(two).addcmul_(self.gradient, self.gradient, value=1 - two)
        if self.weight_decay:
            rate = self.learning_rate * self.weight_decay
            self.values.addcmul_(self.values, self.decayed, value=-rate)
        spread = self.second.sqrt().div_(math.sqrt(1 - two**self.steps)).add_(self.eps)
        self.values.addcdiv_(self.first, spread, value=-self.learning_rate / (1 - one**self.steps))

    def snapshot(self) -> Tensor:
        """A copy of all parameters."""
        return self.values.clone()

    def restore(self, values: Tensor) -> None:
        """Set all parameters to a snapshot."""
        self.values.copy_(values)
