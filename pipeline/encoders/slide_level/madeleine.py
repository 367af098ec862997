"""Madeleine: a slide's vector from four ways of attending to its tiles, aligned across stains.

Source: Jaume et al. 2024, "Multistain pretraining for slide representation learning in pathology".
Parameters have the names of its checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.encoders.slide_level.chief import GatedScores

# Raised when an encoder's output changes. 1: the first.
VERSION = 1

TOKEN = 128  # width in which its training compared single tiles


class TileAttention(nn.Module):
    """Tiles embedded anew for each head, and each head's attention over them.

    Args:
        dim: width of tiles.
        width: of a head.
        heads: number of heads.
    """

    def __init__(self, dim: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        layers: list[nn.Module] = []
        for before, after in ((dim, width), (width, width), (width, width * heads)):
            layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.GELU(), nn.Dropout(0.1)]
        self.pre_attn = nn.Sequential(*layers)
        self.attn = nn.ModuleList(GatedScores(width, width) for _ in range(heads))

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) -> (width · heads,), heads fastest: channel c of head h is at c · heads + h."""
        embedded = self.pre_attn(x).unflatten(-1, (-1, self.heads))
        parts = [
            (scores(embedded[..., h]).float().softmax(0) * embedded[..., h].float()).sum(0)
            for h, scores in enumerate(self.attn)
        ]
        return torch.stack(parts, -1).flatten()


class Madeleine(nn.Module):
    """One vector for a slide.

    Args:
        dim: width of tiles.
        width: of the vector.
        heads: ways of attending.
    """

    def __init__(self, dim: int = 512, width: int = 512, heads: int = 4) -> None:
        super().__init__()
        self.dim = dim
        self.wsi_embedders = TileAttention(dim, width, heads)
        self.projector = nn.Linear(width * heads, width)
        self.token_projector = nn.Linear(width * heads, TOKEN)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim) -> (width,)."""
        return self.projector(self.wsi_embedders(x))
