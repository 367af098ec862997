"""Shazam v2: three depths of every teacher, gated, mixed, carried low -> mid -> high."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.aggregators.network import Output, Shape
from pipeline.bags.batch import Batch
from pipeline.config.models import ShazamV2Model
from pipeline.distillation.blocks import LevelPool, TeacherAttention, level_tokens
from pipeline.distillation.gate import Gate, drop, even
from pipeline.distillation.student import Student

# Raised when predictions of `shazam_v2` change. 1: the first. 2: a network, without linear probes.
VERSION = 2


class Level(nn.Module):
    """One depth: normalise the teachers' tokens, gate them, let them attend to each other.

    After normalisation (the default) the gate is a weight: the log of it is added to the attention
    that a teacher receives and the state is the gate-weighted mean of the tokens, so that a teacher
    of weight 0 is the same as none. Before normalisation, as published, LayerNorm divides the
    gate out again and it does nearly nothing.

    Args:
        teachers: how many there are, T.
        width: of a token.
        layers: attention blocks.
        heads: of each block.
        gate: `after_norm`, `before_norm` or `off`.
    """

    def __init__(self, teachers: int, width: int, layers: int, heads: int, gate: str) -> None:
        super().__init__()
        self.kind = gate
        self.gate = Gate(teachers, width) if gate != "off" else None
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(TeacherAttention(width, heads) for _ in range(layers))

    def forward(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, width), bool (B, T) -> state (B, width), gates (B, T)."""
        gates = even(present) if self.gate is None else self.gate(tokens, present)
        bias = None
        if self.kind == "before_norm":
            h = self.norm(tokens * gates[..., None])
            weights = even(present)
        else:
            h = self.norm(tokens)
            weights = gates
            bias = gates.clamp(min=torch.finfo(gates.dtype).tiny).log()
        for block in self.blocks:
            h = block(h, ~present, bias)
        return (h * weights[..., None]).sum(1), gates


class ShazamV2(Student):
    """The student.

    Args:
        shape: teachers, their levels and widths, outputs.
        cfg: the model's config.
    """

    def __init__(self, shape: Shape, cfg: ShazamV2Model) -> None:
        self.levels = tuple(
            level for level in cfg.levels if any(level in dims for dims in shape.dims)
        )
        pairs = [
            (t, level) for level in self.levels for t, d in enumerate(shape.dims) if level in d
        ]
        super().__init__(shape, cfg, pairs)
        self.cfg = cfg
        width, teachers = cfg.d_model, len(shape.teachers)
        published = cfg.pooling == "published"
        self.pools = nn.ModuleDict(
            {
                f"{t}_{level}": LevelPool(shape.dims[t][level], width, cfg.dropout, published)
                for t, level in pairs
            }
        )
        self.stages = nn.ModuleDict(
            {
                level: Level(teachers, width, cfg.layers, cfg.heads, cfg.gate)
                for level in self.levels
            }
        )
        self.carries = nn.ParameterList(
            nn.Parameter(torch.ones(())) for _ in range(len(self.levels) - 1)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(len(self.levels) - 1))
        has = [[level in dims for dims in shape.dims] for level in self.levels]
        self.register_buffer("has", torch.tensor(has), persistent=False)
        self.has: Tensor
        self.head = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.LayerNorm(width),
            nn.Linear(width, shape.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        scaled = self.scaler(batch)
        tokens: dict[tuple[int, str], Tensor] = {}
        attention: dict[tuple[int, str], Tensor] = {}
        for t, level in self.taught:
            tokens[t, level], attention[t, level] = self.pools[f"{t}_{level}"](
                scaled[t][level], batch.masks[t], batch.emphasised(t, level)
            )
        shown = batch.present
        if self.training and self.cfg.teacher_dropout:
            shown = drop(shown, self.cfg.teacher_dropout)
        states: dict[str, Tensor] = {}
        gates: dict[str, Tensor] = {}
        state: Tensor | None = None
        for i, level in enumerate(self.levels):
            h = level_tokens(tokens, level, len(self.shape.teachers))
            after, gates[level] = self.stages[level](h, shown & self.has[i])
            if state is not None:
                after = self.norms[i - 1](after + self.carries[i - 1] * state)
            state = states[level] = after
        assert state is not None
        out = self.head(state)
        return Output(out, attention, tokens, states, gates)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "levels": list(self.levels)}
