"""Parts that both students are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.aggregators.abmil import AttentionScore
from pipeline.aggregators.attention import MaskedAttention
from pipeline.aggregators.base import masked_softmax, weighted_sum


class LevelPool(nn.Module):
    """One teacher's tiles at one level as one token: map to d_model, attention pooling.

    Args:
        dim: feature width.
        width: d_model.
        dropout: of the pooled token; as published of every tile and attention unit.
        published: the published form, which maps twice without an activation between, and whose
            attention is as wide as a token.
    """

    def __init__(self, dim: int, width: int, dropout: float, published: bool) -> None:
        super().__init__()
        tile_dropout = dropout if published else 0.0
        layers: list[nn.Module] = [nn.Linear(dim, width)]
        if published:
            layers.append(nn.Linear(width, width))
        self.embed = nn.Sequential(*layers, nn.ReLU(), nn.Dropout(tile_dropout))
        hidden = width if published else max(width // 2, 8)
        self.attention = AttentionScore(width, hidden, gated=False, dropout=tile_dropout)
        self.drop = nn.Dropout(0.0 if published else dropout)

    def forward(self, x: Tensor, mask: Tensor, emphasis: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, N, dim), True = padding, `Batch.emphasis` -> token (B, width), attention (B, N).

        Args:
            x: (B, N, dim).
            mask: bool (B, N), True = padding.
            emphasis: (B, N), logarithm of how much each tile counts; None: all alike.
        """
        h = self.embed(x)
        scores = self.attention(h)
        weights = masked_softmax(scores if emphasis is None else scores + emphasis, mask)
        return self.drop(weighted_sum(weights, h)), weights


class TeacherAttention(nn.Module):
    """Self-attention over teacher tokens with residual and LayerNorm after it, no feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = MaskedAttention(width, heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, absent: Tensor, bias: Tensor | None) -> Tensor:
        """Tokens (B, T, width); absent bool (B, T); bias (B, T) on the attention to a teacher.

        Args:
            tokens: (B, T, width).
            absent: bool (B, T), True = the case lacks the teacher.
            bias: (B, T), added to the attention that a teacher receives; None: nothing is.
        """
        return self.norm(tokens + self.attention(tokens, absent, bias))


def level_tokens(tokens: dict[tuple[int, str], Tensor], level: str, teachers: int) -> Tensor:
    """Tokens of one level side by side: (B, T, width); zeros for a teacher without the level.

    Args:
        tokens: (teacher number, level) → (B, width).
        level: whose tokens are wanted.
        teachers: how many there are, T.
    """
    some = next(token for (_, name), token in tokens.items() if name == level)
    return torch.stack(
        [tokens.get((t, level), torch.zeros_like(some)) for t in range(teachers)], dim=1
    )
