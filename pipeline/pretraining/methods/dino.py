"""DINO."""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.heads import dino_head, stop_last_layer, temperature_at
from pipeline.pretraining.methods.base import Moment, MomentumMethod, full_precision, teacher_of

# Raised when teachers of this method change. 1: the first. 2: the teacher's temperature stays at
# 0.04 unless the config says otherwise.
VERSION = 2


@register("dino")
class DINO(MomentumMethod):
    """A student gives for every view the distribution over prototypes that its moving average gives
    for another, large view: L = -Σ softmax((t - c)/τ_t) log softmax(s/τ_s), where c is a running
    mean of the teacher's scores.

    Source: Caron et al. 2021, "Emerging properties in self-supervised vision transformers".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        prototypes: outputs of the head.
        hidden: width inside the head.
        bottleneck: width before the prototypes.
        small_crops: small views of each tile, which only the student sees.
        momentum: share of itself that the teacher keeps in a step, at the start.
        final_momentum: at the end.
        student_temperature: τ_s.
        teacher_temperature: τ_t at the start.
        final_teacher_temperature: after its rise; 0.07 is for large cohorts.
        teacher_warm_up: share of the course that the rise takes.
        frozen: share of the course in which the prototypes stay as they were drawn.
    """

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        prototypes: Count = 65536,
        hidden: Width = 2048,
        bottleneck: Width = 256,
        small_crops: int = 6,
        momentum: Fraction = 0.996,
        final_momentum: Fraction = 1.0,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.04,
        final_teacher_temperature: Positive = 0.04,
        teacher_warm_up: Fraction = 0.3,
        frozen: Fraction = 0.01,
    ) -> None:
        super().__init__(backbone, momentum, final_momentum)
        self.small, self.frozen = small_crops, frozen
        self.temperatures = (teacher_temperature, final_teacher_temperature, teacher_warm_up)
        self.head = dino_head(dim, hidden, bottleneck, prototypes)
        self.teacher_backbone = teacher_of(self.backbone)
        self.teacher_head = teacher_of(self.head)
        self.distil = DINOLoss(prototypes, student_temp=student_temperature)

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        return [(self.teacher_backbone, self.backbone), (self.teacher_head, self.head)]

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        stop_last_layer(self.head, now.done < self.frozen)
        student = [self.head(self.backbone(view)).float() for view in views]
        with torch.no_grad():
            teacher = [
                self.teacher_head(self.teacher_backbone(view)).float()
                for view in views[: self.large]
            ]
        with full_precision(student[0]):
            loss = self.distil(teacher, student, temperature_at(*self.temperatures, now.done))
        return {"loss": loss}
