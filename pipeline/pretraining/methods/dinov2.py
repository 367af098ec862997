"""DINOv2."""

from __future__ import annotations

from typing import Literal

from lightly.loss import KoLeoLoss
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.heads import balanced
from pipeline.pretraining.methods.ibot import MaskedDistillation

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("dinov2")
class DINOv2(MaskedDistillation):
    """DINO and iBOT with equal weight, a regulariser that spreads the summaries of a batch (KoLeo),
    and a teacher whose assignments are balanced over each batch (Sinkhorn–Knopp).

    Source: Oquab et al. 2023, "DINOv2: learning robust visual features without supervision".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        prototypes: outputs of the heads.
        hidden: width inside the heads.
        bottleneck: width before the prototypes.
        shared_head: one head for summaries and patches.
        small_crops: small views of each tile, which only the student sees.
        masked_images: share of the large views that are masked.
        masked_low: least share of a masked view's patches.
        masked_high: most.
        centring: of the teacher's scores: sinkhorn_knopp, or the running mean of DINO.
        koleo: weight of the regulariser, for each large view.
        momentum: share of itself that the teacher keeps in a step, at the start.
        final_momentum: at the end.
        student_temperature: of the student's distributions.
        teacher_temperature: of the teacher's, at the start.
        final_teacher_temperature: after its rise.
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
        shared_head: bool = True,
        small_crops: int = 8,
        masked_images: Fraction = 0.5,
        masked_low: Fraction = 0.1,
        masked_high: Fraction = 0.5,
        centring: Literal["sinkhorn_knopp", "mean"] = "sinkhorn_knopp",
        koleo: float = 0.1,
        momentum: Fraction = 0.992,
        final_momentum: Fraction = 1.0,
        student_temperature: Positive = 0.1,
        teacher_temperature: Positive = 0.04,
        final_teacher_temperature: Positive = 0.07,
        teacher_warm_up: Fraction = 0.3,
        frozen: Fraction = 0.01,
    ) -> None:
        super().__init__(
            backbone,
            dim,
            prototypes=prototypes,
            hidden=hidden,
            bottleneck=bottleneck,
            shared_head=shared_head,
            small_crops=small_crops,
            masked_images=masked_images,
            masked_low=masked_low,
            masked_high=masked_high,
            momentum=momentum,
            final_momentum=final_momentum,
            student_temperature=student_temperature,
            temperatures=(teacher_temperature, final_teacher_temperature, teacher_warm_up),
            frozen=frozen,
            # Balanced scores are taken as they are: the centre stays 0.
            center_momentum=1.0 if centring == "sinkhorn_knopp" else 0.9,
        )
        self.centring, self.weight = centring, koleo
        self.spread = KoLeoLoss()

    def targets(self, scores: Tensor, temperature: float) -> Tensor:
        return balanced(scores, temperature) if self.centring == "sinkhorn_knopp" else scores

    def further(self, summaries: tuple[Tensor, ...]) -> dict[str, Tensor]:
        total = sum((self.spread(one) for one in summaries), summaries[0].new_zeros(()))
        return {"koleo": self.weight * total}
