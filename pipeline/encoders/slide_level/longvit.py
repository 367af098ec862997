"""LongViT: LongNet over the patches of a whole region, up to a million of them.

The patches are projected tile by tile when tiles are read (teacher `longvit_patches`), so that a
region's pixels, 3 GB at 32,768 px, are never in memory at once; here the tokens are put into their
places.

Source: Wang et al. 2023, "When an image is worth 1,024 x 1,024 words: a case study in computational
pathology". Parameters have the names of its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from pipeline.encoders.architectures import PatchProjection
from pipeline.encoders.slide_level.longnet import OUTER_EPS, RATIOS, Encoder
from pipeline.errors import ConfigError

# Raised when an encoder's output changes. 1: the first.
VERSION = 1

PATCH = 32  # px
TRAINED = 32  # patches along the regions of the pre-training
SMALLEST = 4  # tiles along them
GLASS = 243 / 255  # the grey that its authors take for glass


class LongViT(nn.Module):
    """A region's vector from the tokens of its tiles.

    Args:
        dim: width of a tile's features: its patches' tokens, row by row, side by side.
        region: px, side of a region.
        segments: segment length of each branch of dilated attention, in tokens.
        width: of tokens.
        depth: blocks.
        heads: attention heads.
        tile: px, side of a tile.

    Raises:
        ConfigError: `dim` is not that of a tile's tokens.
    """

    def __init__(
        self,
        dim: int,
        region: int,
        segments: Sequence[int],
        width: int = 384,
        depth: int = 12,
        heads: int = 16,
        tile: int = 256,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.inside = tile // PATCH  # patches along a tile
        self.side = region // tile  # tiles along a region
        wanted = width * self.inside**2
        if dim != wanted:
            raise ConfigError(
                f"LongViT reads a tile's {self.inside**2} patches, {wanted} numbers a tile, and "
                f"not {dim} features; remove `input:`, or name `longvit_patches` there"
            )
        self.patch_embed = PatchProjection(PATCH, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, TRAINED * TRAINED, width))
        branches = tuple(zip(segments, RATIOS, strict=True))
        self.encoder = Encoder(width, depth, heads, branches, 0.0, 0.0, closed=False)
        self.norm = nn.LayerNorm(width, eps=OUTER_EPS)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, tiles: Tensor, places: Tensor) -> Tensor:
        """One region: (n, dim) features of its tiles -> (width,).

        Places without a tile are seen as glass, as the model saw them.

        Args:
            tiles: (n, dim).
            places: int64 (n, 2), each tile's column and row inside the region, in tiles.
        """
        return self.encode(self.tokens(tiles, places))

    def tokens(self, tiles: Tensor, places: Tensor) -> Tensor:
        """A region's tokens (1, patches, width) row by row, without positions.

        Args:
            tiles, places: as in `forward`.
        """
        glass = self.glass().to(tiles.dtype)
        grid = glass.repeat(self.side, self.inside, self.side, self.inside, 1)
        by_tile = grid.permute(0, 2, 1, 3, 4)
        columns, rows = places.unbind(1)
        by_tile[rows, columns] = tiles.unflatten(1, (self.inside, self.inside, -1))
        return grid.flatten(0, 3)[None]

    def glass(self) -> Tensor:
        """The token (width,) of a patch of glass."""
        mean, std = (
            self.pos_embed.new_tensor(values).view(1, 3, 1, 1)
            for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        return self.patch_embed(((GLASS - mean) / std).expand(1, 3, PATCH, PATCH))[0, 0]

    def encode(self, tokens: Tensor) -> Tensor:
        """A region's vector (width,): the mean of its normalised tokens.

        Args:
            tokens: (1, patches, width) of a square region, row by row, without positions.
        """
        side = math.isqrt(tokens.shape[1])
        x = tokens + self.positions(side).to(tokens.dtype)
        last = len(self.encoder.layers)
        return self.norm(self.encoder(x, (last,))[last])[0].mean(0)

    def positions(self, side: int) -> Tensor:
        """Learned positions (1, side², width), interpolated to so many patches along a region."""
        if side == TRAINED:
            return self.pos_embed
        grid = self.pos_embed.unflatten(1, (TRAINED, TRAINED)).permute(0, 3, 1, 2)
        grown = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        return grown.permute(0, 2, 3, 1).flatten(1, 2)
