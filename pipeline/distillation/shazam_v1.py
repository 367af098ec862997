"""Shazam v1: teachers as tokens, self-attention over them, one prediction.

On a bag (or a single tile, which is a bag of one) each teacher's mean feature is mapped to a token.
"""

from __future__ import annotations

from torch import nn

from pipeline.aggregators.base import masked_mean
from pipeline.aggregators.network import Output, Shape
from pipeline.bags.batch import Batch
from pipeline.config.models import ShazamV1Model
from pipeline.distillation.blocks import TeacherAttention, level_tokens
from pipeline.distillation.gate import drop, even
from pipeline.distillation.student import Student

# Raised when predictions of `shazam_v1` change. 1: the first.
VERSION = 1

LEVEL = "high"


class ShazamV1(Student):
    """Per-teacher mapper, `layers` attention blocks over teacher tokens, mean, classifier.

    Args:
        shape: teachers with a `high` level, widths, outputs.
        cfg: the model's config.
    """

    def __init__(self, shape: Shape, cfg: ShazamV1Model) -> None:
        taught = [(t, LEVEL) for t in range(len(shape.teachers))]
        super().__init__(shape, cfg, taught)
        width = cfg.d_model
        self.teacher_dropout = cfg.teacher_dropout
        self.mappers = nn.ModuleList(
            _mapper(dims[LEVEL], width, cfg.dropout) for dims in shape.dims
        )
        self.blocks = nn.ModuleList(TeacherAttention(width, cfg.heads) for _ in range(cfg.layers))
        self.head = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.LayerNorm(width),
            nn.Linear(width, shape.outputs),
        )

    def forward(self, batch: Batch) -> Output:
        scaled = self.scaler(batch)
        tokens = {
            (t, LEVEL): mapper(masked_mean(scaled[t][LEVEL], batch.masks[t]))
            for t, mapper in enumerate(self.mappers)
        }
        present = drop(batch.present, self.teacher_dropout) if self.training else batch.present
        h = level_tokens(tokens, LEVEL, len(self.mappers))
        for block in self.blocks:
            h = block(h, ~present, None)
        gates = even(present)
        state = (h * gates[..., None]).sum(1)
        return Output(self.head(state), tokens=tokens, levels={LEVEL: state}, gates={LEVEL: gates})


def _mapper(dim: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.LayerNorm(width),
        nn.ReLU(),
    )
