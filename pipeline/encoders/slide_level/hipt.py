"""HIPT's second stage: a transformer over the 256 px patches of a region of 4096 px.

Source: Chen et al. 2022, "Scaling vision transformers to gigapixel images via hierarchical
self-supervised learning". Parameters have the names of its checkpoint.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.encoders.dino_positions import dino_positions

# Raised when regions or their vectors change. 1: the first.
VERSION = 1

SIDE = 16  # patches along a region of 4096 px
EPS = 1e-6


class SelfAttention(nn.Module):
    """Multi-head self-attention over the patches that are there.

    Args:
        width: of tokens, a multiple of `heads`.
        heads: number of heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if seen is None else seen[:, None, None, :]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and a feed-forward net, each normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x), seen)
        return x + self.mlp(self.norm2(x))


class RegionTransformer(nn.Module):
    """A region's vector from its patches' features (ViT4K).

    Args:
        dim: width of the patches' features.
        width: of tokens and of the result.
        depth: blocks.
        heads: attention heads.
        grid: patches along the regions that it was trained on; positions are learned for these.
    """

    def __init__(
        self, dim: int = 384, width: int = 192, depth: int = 6, heads: int = 6, grid: int = 14
    ) -> None:
        super().__init__()
        self.dim = dim
        self.phi = nn.Sequential(nn.Linear(dim, width), nn.GELU())
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)
        for values in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(values, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, shape: tuple[int, int] = (SIDE, SIDE)
    ) -> Tensor:
        """(R, rows · columns, dim) -> (R, width).

        Args:
            x: R regions, each one's patches in row-major order.
            mask: bool (R, rows · columns), True = a place without a patch: it is not attended to;
                None: there is none.
            shape: (rows, columns) of patches in a region.
        """
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), self.phi(x)], 1)
        tokens = tokens + dino_positions(self.pos_embed, *shape)
        seen = None if mask is None else F.pad(~mask, (1, 0), value=True)
        for block in self.blocks:
            tokens = block(tokens, seen)
        return self.norm(tokens)[:, 0]


@dataclasses.dataclass(frozen=True)
class Regions:
    """A slide's tiles sorted into regions.

    Attributes:
        corners: int64 (R, 2), column and row of each region's first patch; sorted by row, then
            column.
        places: int64 (N,), for each tile region · side² + its place in it, row by row.
        patches: int64 (R,), how many of its side² places have a tile.
        side: tiles along a region.
    """

    corners: np.ndarray
    places: np.ndarray
    patches: np.ndarray
    side: int = SIDE

    def fill(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features by region: (R, side², D), zeros where there is no tile, and there True (R, …).

        Args:
            features: (N, D), of the tiles.
        """
        inside = self.side**2
        count = len(self.corners) * inside
        places = torch.from_numpy(self.places).to(features.device)
        whole = features.new_zeros(count, features.shape[1])
        whole[places] = features
        mask = torch.ones(count, dtype=torch.bool, device=features.device)
        mask[places] = False
        return whole.view(-1, inside, features.shape[1]), mask.view(-1, inside)

    def tiles_of(self, region: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (n,) of a region's tiles, and where each is in it: (n, 2), column and row."""
        own, inside = np.divmod(self.places, self.side**2)
        chosen = np.flatnonzero(own == region)
        rows, columns = np.divmod(inside[chosen], self.side)
        return chosen, np.stack([columns, rows], 1)


def regions(cells: np.ndarray, side: int = SIDE) -> Regions:
    """Cut a slide's grid of tiles into squares of `side` by `side`.

    Every region with a tile is kept, however little tissue it has: leaving the poor ones out would
    choose the slides with much tissue.

    Args:
        cells: int (N, 2), column and row of each tile.
        side: tiles along a region.
    """
    corner, inside = np.divmod(cells, side)
    kept, number = np.unique(corner[:, ::-1], axis=0, return_inverse=True)
    number = number.reshape(-1)
    places = number * side * side + inside[:, 1] * side + inside[:, 0]
    return Regions(kept[:, ::-1] * side, places, np.bincount(number, minlength=len(kept)), side)
