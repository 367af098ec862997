"""Shazam v2: three depths of every teacher, gated, mixed, carried low -> mid -> high."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.network import Lesson, Objective, Output, Shape
from pipeline.bags.batch import Batch
from pipeline.config.models import ShazamV2Model
from pipeline.distillation.anchor import Anchor
from pipeline.distillation.blocks import LevelPool, TeacherAttention, level_tokens
from pipeline.distillation.gate import Gate, drop, even
from pipeline.distillation.probe import posterior
from pipeline.distillation.student import Student

# Raised when predictions of `shazam_v2` change (its fallback included). 1: the first.
VERSION = 1

NETWORK_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Before the validation part has spoken, a share is believed like (1 - share)^CAUTION. The network
# was stopped where it did best on the same few cases, so that they speak too well of it; where the
# truth was known, larger shares than these cost concordance.
CAUTION = 2


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
        cfg: the model's config. With `faithful` mapping and pooling are as published too.
    """

    settled = ("share",)

    def __init__(self, shape: Shape, cfg: ShazamV2Model) -> None:
        self.levels = tuple(
            level for level in cfg.levels if any(level in dims for dims in shape.dims)
        )
        pairs = [
            (t, level) for level in self.levels for t, d in enumerate(shape.dims) if level in d
        ]
        super().__init__(shape, cfg.d_model, cfg.distillation, pairs)
        self.cfg = cfg
        width, teachers = cfg.d_model, len(shape.teachers)
        self.pools = nn.ModuleDict(
            {
                f"{t}_{level}": LevelPool(shape.dims[t][level], width, cfg.dropout, cfg.faithful)
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
        self.anchor = None if cfg.fallback == "off" else Anchor(shape, self.levels, cfg.fallback)
        self.register_buffer("share", torch.ones(()))
        self.share: Tensor

    def fit(self, lesson: Lesson) -> None:
        super().fit(lesson)
        if self.anchor is not None:
            self.anchor.fit(lesson, self.scaler)

    @property
    def refits(self) -> bool:
        return self.anchor is not None and self.cfg.refit

    def finish(self, lesson: Lesson) -> None:
        """Probes need no validation part: once it has settled the share, they learn from it too."""
        if self.anchor is not None and self.refits:
            self.anchor.fit(lesson, self.scaler)

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
        if self.anchor is None:
            return Output(out, attention, tokens, states, gates)
        if self.training:
            return Output(out, attention, tokens, states, gates, self.anchor.unseen(batch))
        ground = self.anchor(scaled, batch)
        mixed = self.share * out + (1 - self.share) * ground
        return Output(mixed, attention, tokens, states, gates, ground)

    @torch.no_grad()
    def settle(self, batches: Iterable[Batch], y: np.ndarray, task: Objective) -> None:
        """How much of the prediction is the network's: the mean over shares, each as likely as it
        makes the validation cases, times its prior. Little evidence leaves it near a sixth.

        Args:
            batches: of the validation cases; gone through several times.
            y: float32, targets of all cases.
            task: gives the evidence of predictions.
        """
        if self.anchor is None:
            return
        self.eval()
        found = []
        for share in NETWORK_SHARES:
            self.share.fill_(share)
            outs = [(batch.cases.cpu().numpy(), self(batch).out.float().cpu()) for batch in batches]
            out = torch.cat([out for _, out in outs]).numpy()
            found.append(task.evidence(out, y[np.concatenate([cases for cases, _ in outs])]))
        shares = np.array(NETWORK_SHARES)
        prior = CAUTION * np.log1p(-shares.clip(max=1 - 1e-9))
        self.share.fill_(float(posterior(np.array(found) + prior) @ shares))

    def facts(self) -> dict[str, Any]:
        anchor = (
            {}
            if self.anchor is None
            else {"anchor": self.anchor.facts(), "share": float(self.share)}
        )
        return {**super().facts(), "levels": list(self.levels), **anchor}
