"""Learned positions of a vision transformer, fitted to another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dino_positions(table: Tensor, rows: int, columns: int) -> Tensor:
    """Learned positions fitted to another grid as DINO's code does: bicubic, by a factor that is a
    tenth of a patch larger than the grid asks for.

    Args:
        table: (1, 1 + n · n, C), the class token's first.
        rows, columns: of the grid that is wanted.

    Returns:
        (1, 1 + rows · columns, C).
    """
    old = round((table.shape[1] - 1) ** 0.5)
    if (rows, columns) == (old, old):
        return table
    grid = F.interpolate(
        table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2),
        scale_factor=((rows + 0.1) / old, (columns + 0.1) / old),
        mode="bicubic",
    )
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
