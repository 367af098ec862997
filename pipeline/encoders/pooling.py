"""From a network's tokens or maps to one vector a tile."""

from __future__ import annotations

import torch
from torch import Tensor

TOKEN_POOLINGS = ("cls", "mean", "cls_mean", "registers")


def pool_tokens(prefix: Tensor, patches: Tensor, pooling: str) -> Tensor:
    """One vector from the tokens of a vision transformer.

    Args:
        prefix: (B, P, C): the class token, then registers, which the authors of Virchow2 and
            H0-mini (P is 5) do not pool.
        patches: (B, T, C): the patch tokens.
        pooling: `cls`; `mean` of the patch tokens; `cls_mean`, both side by side (Virchow, model
            card); or `registers`, the mean of these: a student's tokens, one for each teacher.

    Returns:
        (B, C), or (B, 2C) with `cls_mean`.
    """
    if pooling == "cls":
        return prefix[:, 0]
    if pooling == "mean":
        return patches.mean(dim=1)
    if pooling == "cls_mean":
        return torch.cat([prefix[:, 0], patches.mean(dim=1)], dim=-1)
    if pooling == "registers":
        return prefix[:, 1:].mean(dim=1)
    raise ValueError(f"pooling `{pooling}` is not one of {TOKEN_POOLINGS}")


def pool_map(features: Tensor) -> Tensor:
    """The mean over space of a feature map: (B, C, H, W) -> (B, C)."""
    return features.mean(dim=(2, 3))
