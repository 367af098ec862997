"""TransMIL (Shao et al. 2021): attention with a convolution between as position encoding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pipeline.aggregators.attention import MaskedAttention
from pipeline.aggregators.base import Aggregator, Bag, full_mask
from pipeline.config.registry import register
from pipeline.config.section import Fraction, Width

# Raised when predictions with this aggregator change. 1: the first.
VERSION = 1


@register("transmil", published=("d_model", "dropout"))
class TransMIL(Aggregator):
    """Tiles on a square, class token, attention, pyramid position encoding, attention, head.

    The published code makes the square by repeating the first tiles and attends to batch padding.
    Here every bag gets the square of its own size, on a canvas as large as the batch's largest, and
    what lies outside is masked and zero, which is what the convolution's own padding would be: the
    output does not depend on the batch. Attention is exact (not Nyström) and memory-efficient.

    Source: Shao et al. 2021, "TransMIL: Transformer based correlated multiple instance learning for
    whole slide image classification".

    Args:
        dim: feature width.
        out: outputs.
        d_model: width of the tokens.
        dropout: of the attention weights.
        faithful: as published in the Phikon benchmark: no projection (width = dim, which must be a
            multiple of 8), and full instead of depthwise convolutions.
    """

    ordered = True

    def __init__(
        self,
        dim: int,
        out: int,
        *,
        d_model: Width = 128,
        dropout: Fraction = 0.25,
        faithful: bool = False,
    ) -> None:
        super().__init__()
        width = dim if faithful else d_model
        heads = math.gcd(8, width)
        self.embed: nn.Module = (
            nn.Identity() if faithful else nn.Sequential(nn.Linear(dim, width), nn.ReLU())
        )
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.token, std=0.02)
        rate = 0.0 if faithful else dropout
        self.first = MaskedAttention(width, heads, rate, qkv_bias=False)
        self.second = MaskedAttention(width, heads, rate, qkv_bias=False)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, width, k, padding=k // 2, groups=1 if faithful else width)
            for k in (7, 5, 3)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Bag:
        mask = full_mask(x, mask)
        source, outside, side = squares(mask)
        h = self.embed(x)
        index = source[..., None].expand(-1, -1, h.shape[2])
        h = h.gather(1, index).masked_fill(outside[..., None], 0.0)
        h = torch.cat([self.token.expand(len(x), -1, -1), h], dim=1)
        hidden = torch.cat([outside.new_zeros(len(x), 1), outside], dim=1)
        h = h + self.first(self.norms[0](h), hidden)
        h = self._encode_positions(h, outside, side)
        last = self.norms[1](h)
        scores = self.second.row(last, hidden)[:, 1:]
        h = h + self.second(last, hidden)
        tiles = torch.zeros(mask.shape, dtype=scores.dtype, device=x.device)
        tiles = tiles.scatter_add(1, source, scores)
        return Bag(self.head(self.norm(h[:, 0])), tiles.masked_fill(mask, 0.0))

    def _encode_positions(self, h: Tensor, outside: Tensor, side: int) -> Tensor:
        tokens = h[:, 1:].masked_fill(outside[..., None], 0.0)
        grid = tokens.transpose(1, 2).unflatten(2, (side, side))
        added = sum((conv(grid) for conv in self.convolutions), grid)
        tokens = added.flatten(2).transpose(1, 2).masked_fill(outside[..., None], 0.0)
        return torch.cat([h[:, :1], tokens], dim=1)


def squares(mask: Tensor) -> tuple[Tensor, Tensor, int]:
    """Where each bag's tiles lie on a common square canvas.

    Args:
        mask: (B, N), True = padding.

    Returns:
        source int64 (B, S²), the column of `mask` whose tile lies there (a bag's first tiles again
        where its own square is larger than the bag); outside bool (B, S²), True where there is
        none; the side S.
    """
    real = (~mask).sum(1)
    sides = real.double().sqrt().ceil().long()
    side = max(int(sides.max()), 1)
    order = mask.long().argsort(dim=1, stable=True)  # real columns first, in their order
    place = torch.arange(side * side, device=mask.device)
    row, column = place // side, place % side
    outside = (row[None] >= sides[:, None]) | (column[None] >= sides[:, None])
    local = row[None] * sides[:, None] + column[None]
    rank = (local % real.clamp(min=1)[:, None]).masked_fill(outside, 0)
    return order.gather(1, rank), outside, side
