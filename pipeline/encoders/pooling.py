"""From a network's tokens or maps to one vector a tile."""

from __future__ import annotations

import torch
from torch import Tensor

TOKEN_POOLINGS = ("cls", "mean", "cls_mean")


def pool_tokens(tokens: Tensor, pooling: str, prefix: int) -> Tensor:
    """One vector from the tokens of a vision transformer.

    Args:
        tokens: (B, T, C): class token, registers, then patches.
        pooling: `cls`; `mean` of the patch tokens; or `cls_mean`, both side by side (Virchow,
            model card). Registers are never pooled (Virchow2, H0-mini: `prefix` is 5).
        prefix: how many tokens stand before the patches.

    Returns:
        (B, C), or (B, 2C) with `cls_mean`.
    """
    if pooling == "cls":
        return tokens[:, 0]
    mean = tokens[:, prefix:].mean(dim=1)
    if pooling == "mean":
        return mean
    if pooling == "cls_mean":
        return torch.cat([tokens[:, 0], mean], dim=-1)
    raise ValueError(f"pooling `{pooling}` is not one of {TOKEN_POOLINGS}")


def pool_map(features: Tensor) -> Tensor:
    """The mean over space of a feature map: (B, C, H, W) -> (B, C)."""
    return features.mean(dim=(2, 3))
