"""What more tissue like a tile would do to the prediction, whatever the network makes of it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from pipeline.aggregators.network import Network
from pipeline.bags.batch import Batch

MORE = 0.1  # of the case, which an influence supposes to be like the tile


def influences(
    network: Network, lead: Callable[[Tensor], Tensor], batch: Batch
) -> tuple[dict[tuple[int, str], Tensor], dict[tuple[int, str], Tensor]]:
    """What more tissue like a tile would do to the prediction, to first order.

    The influence function of the bag (Hampel, JASA 1974): with a share e of the case replaced by
    tissue like tile i, the prediction f changes by e · N · df/dlog w_i at w = 1, where w are the
    weights that all pooling gives the tiles. Over the tiles of a bag it sums to 0.

    Args:
        network: a trained network in evaluation mode.
        lead: outputs (B, C) -> f (B,), as `Head.lead` of its task.
        batch: bags.

    Returns:
        `Output.attention`, and for each teacher number and level float32 (B, N_t), the change for
        e = MORE through this teacher and level; NaN where the network pools without such weights.
    """
    emphasis = {
        (t, level): torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        for t, (levels, mask) in enumerate(zip(batch.features, batch.masks, strict=True))
        for level in levels
    }
    with torch.enable_grad(), _still(network):
        output = network(dataclasses.replace(batch, emphasis=emphasis))
        f = lead(output.out).sum()
        slopes: tuple[Tensor | None, ...] = (None,) * len(emphasis)
        if f.requires_grad:
            slopes = torch.autograd.grad(f, list(emphasis.values()), allow_unused=True)
    found = {}
    for (t, level), slope in zip(emphasis, slopes, strict=True):
        tiles = (~batch.masks[t]).sum(dim=1, keepdim=True)
        unknown = torch.full(batch.masks[t].shape, torch.nan, device=batch.masks[t].device)
        found[t, level] = unknown if slope is None else MORE * tiles * slope
    return {key: part.detach() for key, part in output.attention.items()}, found


@contextlib.contextmanager
def _still(network: Network) -> Iterator[None]:
    """Its parameters need no gradient meanwhile, so that the tiles' layers are not remembered."""
    learning = [p for p in network.parameters() if p.requires_grad]
    try:
        for p in learning:
            p.requires_grad_(False)
        yield
    finally:
        for p in learning:
            p.requires_grad_(True)
