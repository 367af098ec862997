"""Attention that knows what is padding, and the transformer layer made of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.aggregators.base import masked_softmax


class MaskedAttention(nn.Module):
    """Multi-head self-attention over the real tokens.

    Args:
        width: token width, a multiple of `heads`.
        heads: number of heads.
        dropout: on the attention weights.
        qkv_bias: whether queries, keys and values have a bias.
    """

    def __init__(
        self, width: int, heads: int = 1, dropout: float = 0.0, qkv_bias: bool = True
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.output = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, N, width / heads)."""
        b, n, width = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: (B, N, width).
            mask: (B, N), True = not attended to. A row without any real token attends evenly.
            bias: (B, N), added to every query's score of a key.
        """
        q, k, v = self.split(x)
        lowest = torch.finfo(q.dtype).min
        added = torch.zeros_like(mask, dtype=q.dtype) if bias is None else bias.to(q.dtype)
        added = added.masked_fill(mask, lowest)[:, None, None, :]
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=rate)
        return self.output(y.transpose(1, 2).flatten(2))

    def row(self, x: Tensor, mask: Tensor, token: int = 0) -> Tensor:
        """How much one token attends to each: (B, N), mean over heads, 0 under the mask.

        Args:
            x: (B, N, width).
            mask: bool (B, N), True = padding.
            token: number of the token that attends.
        """
        q, k, _ = self.split(x)
        scores = (q[:, :, token : token + 1] * k).sum(-1) * q.shape[-1] ** -0.5
        return masked_softmax(scores, mask[:, None, :].expand_as(scores)).mean(1)


class TransformerLayer(nn.Module):
    """Attention and a feed-forward net with residuals, normalised before (default) or after each.

    Args:
        width, heads: as in MaskedAttention.
        hidden: width of the feed-forward net.
        dropout: on attention weights, in the net, and on both branches.
        pre_norm: True: LayerNorm before each branch (steadier); False: after the sum.
    """

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, pre_norm: bool = True
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = MaskedAttention(width, heads, dropout)
        self.net = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        first, second = self.norms
        if self.pre_norm:
            x = x + self.drop(self.attention(first(x), mask))
            return x + self.drop(self.net(second(x)))
        x = first(x + self.drop(self.attention(x, mask)))
        return second(x + self.drop(self.net(x)))

    def attended(self, x: Tensor, mask: Tensor, token: int = 0) -> Tensor:
        """The attention row of one token at this layer's input: (B, N).

        Args:
            x: (B, N, width), the layer's input.
            mask: bool (B, N), True = padding.
            token: number of the token that attends.
        """
        return self.attention.row(self.norms[0](x) if self.pre_norm else x, mask, token)
