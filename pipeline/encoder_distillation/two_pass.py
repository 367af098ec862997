"""The gradient of a loss that couples all tiles of a slide, in the memory of a few of them.

First all tiles are encoded without a graph, and the loss of the whole gives its gradient with
respect to each tile's features. Then the tiles are encoded again, some at a time, and that gradient
goes on from their features to the parameters. The result is the plain gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# Part number -> its features (n, D), and a loss of its own, counted already as it is to count.
Part = Callable[[int], tuple[Tensor, Tensor]]


def two_pass(
    module: nn.Module, part: Part, parts: int, whole: Callable[[Tensor], Tensor]
) -> Tensor:
    """Add the gradients of `whole(all features) + the parts' own losses` to a module's parameters.

    Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited
    setup".

    Args:
        module: that the parts' features come from. Its buffers (running means) follow the second
            pass alone.
        part: encodes one part; called twice, it must give the same both times (`drawn` for what it
            draws).
        parts: how many there are.
        whole: loss of the features (N, D) of all parts, float32.

    Returns:
        the loss, detached.
    """
    before = [buffer.clone() for buffer in module.buffers()]
    with torch.no_grad():
        kept = [part(i)[0].float() for i in range(parts)]
        for buffer, value in zip(module.buffers(), before, strict=True):
            buffer.copy_(value)
    features = torch.cat(kept).requires_grad_(True)
    loss = whole(features)
    (gradient,) = torch.autograd.grad(loss, features)
    total = loss.detach()
    for i, wanted in enumerate(gradient.split([len(one) for one in kept])):
        found, own = part(i)
        ((found.float() * wanted).sum() + own).backward()
        total = total + own.detach()
    return total


@contextmanager
def drawn(seed: int, device: torch.device) -> Iterator[torch.Generator]:
    """What is drawn within (dropout, and from the generator that is given) follows the seed.

    Args:
        seed: of all draws.
        device: where they are made.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield torch.Generator(device).manual_seed(seed)
