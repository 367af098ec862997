"""LongNet as GigaPath's slide encoder: a transformer over the tiles of a whole slide.

Parameters have the names of the published checkpoint, so that it is loaded key by key.

Source: Xu et al. 2024, "A whole-slide foundation model for digital pathology from real-world data"
(Prov-GigaPath); Ding et al. 2023 (LongNet); Sub-LayerNorm: Wang et al. 2022 (Foundation
Transformers).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from pipeline.encoders.slide_level.dilated import Branch, dilated_attention
from pipeline.encoders.slide_level.positions import sin_cos

# Raised when an encoder's output changes. 1: the first.
VERSION = 1

RATIOS = (1, 2, 4, 8, 16)
SHORTEST = 1024  # tokens of the shortest segment
MAX_WSI = 262144  # px at the tiles' scale: the side of the largest slide
TILE = 256  # px
INNER_EPS, OUTER_EPS = 1e-5, 1e-6
ROWS = 2**16  # tokens that go through a feed-forward net at a time


def segment_lengths(max_wsi: int = MAX_WSI, tile: int = TILE) -> tuple[int, ...]:
    """Segment lengths for slides up to a size: powers of two, evenly spaced in the exponent.

    >>> segment_lengths()
    (1024, 5792, 32768, 185363, 1048576)
    """
    low = math.log2(SHORTEST)
    high = int(math.log2((max_wsi // tile) ** 2))
    step = (high - low) / (len(RATIOS) - 1)
    # A power of two must not be truncated to the integer below it.
    return tuple(int(2 ** (low + i * step) + 1e-6) for i in range(len(RATIOS)))


class DropPath(nn.Module):
    """Leaves a branch out, for each sample alone, and scales it up where it stays.

    Args:
        rate: how often.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


class Attention(nn.Module):
    """Multi-head dilated attention with a norm before the output projection.

    Args:
        width: of tokens, a multiple of `heads`.
        heads: number of heads.
        branches: (segment length, ratio) of each.
    """

    def __init__(self, width: int, heads: int, branches: Sequence[Branch]) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.branches = tuple(branches)
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.inner_attn_ln = nn.LayerNorm(width, eps=INNER_EPS)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        segments, ratios = zip(*self.branches, strict=True)
        out = dilated_attention(q, k, v, segments, ratios).flatten(2)
        return self.out_proj(self.inner_attn_ln(out))


class FeedForward(nn.Module):
    """Two layers with GELU and a norm between them.

    Args:
        width: of tokens.
        hidden: between the layers.
        dropout: of the output.
    """

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.ffn_layernorm = nn.LayerNorm(hidden, eps=INNER_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] <= ROWS or torch.is_grad_enabled():
            return self._rows(x)
        # A million tokens four times as wide are 6 GB for each step of the net.
        return torch.cat([self._rows(part) for part in x.split(ROWS, 1)], 1)

    def _rows(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = nn.functional.gelu(x.float()).type_as(x)
        return self.dropout(self.fc2(self.ffn_layernorm(x)))


class Layer(nn.Module):
    """A block, normalised before each branch.

    Args:
        width, heads, branches: as in Attention.
        dropout: of both branches.
        drop_path: of both branches.
    """

    def __init__(
        self, width: int, heads: int, branches: Sequence[Branch], dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, branches)
        self.self_attn_layer_norm = nn.LayerNorm(width, eps=INNER_EPS)
        self.ffn = FeedForward(width, 4 * width, dropout)
        self.final_layer_norm = nn.LayerNorm(width, eps=INNER_EPS)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.dropout(self.self_attn(self.self_attn_layer_norm(x))))
        return x + self.drop_path(self.ffn(self.final_layer_norm(x)))


class Encoder(nn.Module):
    """The blocks and the norm after the last one.

    Args:
        width, heads, branches: as in Attention.
        depth: blocks.
        dropout: of embeddings and branches.
        drop_path: of the last block; that of the others grows evenly from 0.
        closed: whether there is a norm after the last block.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        branches: Sequence[Branch],
        dropout: float,
        drop_path: float,
        closed: bool = True,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            Layer(width, heads, branches, dropout, drop_path * i / max(1, depth - 1))
            for i in range(depth)
        )
        self.layer_norm = nn.LayerNorm(width, eps=INNER_EPS) if closed else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, wanted: Collection[int]) -> dict[int, Tensor]:
        """States by number, 0 (before the first block) to depth: (B, N, width) each.

        Those that nobody wants are forgotten: of 100,000 tiles each takes 300 MB.

        Args:
            x: (B, N, width).
            wanted: numbers of states; those after the last one are not computed.
        """
        x = self.dropout(x)
        found = {0: x} if 0 in wanted else {}
        for number, layer in enumerate(self.layers[: max(wanted)], 1):
            x = layer(x)
            if number in wanted:
                found[number] = x
        return found


class PatchEmbed(nn.Module):
    """A tile's features as a token; the name is the checkpoint's."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class LongNetViT(nn.Module):
    """One vector for a slide, from its tiles' features and their places.

    Slides go through one by one: the segments depend on the number of tiles, so that a slide in a
    padded batch would be encoded as another one is.

    Args:
        dim: width of the tiles' features.
        width: of tokens.
        depth: blocks.
        heads: attention heads.
        max_wsi: px at the tiles' scale; with `tile` it decides the segments.
        tile: px, side of a tile.
        dropout: while learning.
        drop_path: while learning, of the last block.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        depth: int,
        heads: int = 16,
        *,
        max_wsi: int = MAX_WSI,
        tile: int = TILE,
        dropout: float = 0.25,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.width = width
        self.depth = depth
        self.patch_embed = PatchEmbed(dim, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        branches = tuple(zip(segment_lengths(max_wsi, tile), RATIOS, strict=True))
        self.encoder = Encoder(width, depth, heads, branches, dropout, drop_path)
        self.norm = nn.LayerNorm(width, eps=OUTER_EPS)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        x: Tensor,
        cells: Tensor,
        mask: Tensor | None = None,
        *,
        layers: Sequence[int] = (),
        pooling: str = "mean",
    ) -> Tensor:
        """Encode slides.

        Args:
            x: (B, N, dim), tiles in row-major order.
            cells: int (B, N, 2), column and row of each tile.
            mask: bool (B, N), True = padding; None: there is none.
            layers: which states, 0 (the embedding) to depth (the last block), each through the
                model's norm alone; none: the last block through the encoder's norm, too, which
                gives another vector than the state of the last block.
            pooling: `mean` of the tiles, or `cls`, the class token, which GigaPath's pre-training
                did not train.

        Returns:
            (B, width · max(1, len(layers))).
        """
        rows = []
        for i in range(len(x)):
            real = slice(None) if mask is None else ~mask[i]
            rows.append(self._slide(x[i, real], cells[i, real], layers, pooling))
        return torch.stack(rows)

    def _slide(self, x: Tensor, cells: Tensor, layers: Sequence[int], pooling: str) -> Tensor:
        tokens = self.patch_embed(x[None])
        tokens = tokens + sin_cos(cells, self.width).to(tokens.dtype)
        # The class token's position is zero.
        tokens = torch.cat([self.cls_token.to(tokens.dtype), tokens], 1)
        states = self.encoder(tokens, layers or (self.depth,))
        chosen = [states[i] for i in layers] or [self.encoder.layer_norm(states[self.depth])]
        return torch.cat([self._pool(state[0], pooling) for state in chosen])

    def _pool(self, state: Tensor, pooling: str) -> Tensor:
        return self.norm(state[1:].mean(0) if pooling == "mean" else state[0])
