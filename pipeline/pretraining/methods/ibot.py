"""iBOT."""

from __future__ import annotations

import torch
from lightly.loss import DINOLoss, IBOTPatchLoss
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Positive, Width
from pipeline.pretraining.heads import dino_head, stop_last_layer, temperature_at
from pipeline.pretraining.methods.base import Moment, MomentumMethod, full_precision, teacher_of
from pipeline.pretraining.tokens import Tokens, block_masks

# Raised when teachers of this method change. 1: the first.
VERSION = 1


class MaskedDistillation(MomentumMethod):
    """What iBOT and DINOv2 have in common: a student sees blocks of patches masked, its moving
    average sees the whole view; both the summary and the masked patches' tokens are learned.

    Args:
        backbone, dim: as of `IBOT`.
        prototypes, hidden, bottleneck, shared_head, small_crops: as of `IBOT`.
        masked_images, masked_low, masked_high: as of `IBOT`.
        momentum, final_momentum, student_temperature, frozen: as of `IBOT`.
        temperatures: the teacher's first and last, and share of the course between them.
        center_momentum: share of itself that the centre of the teacher's scores keeps.
    """

    tokens = True

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        prototypes: int,
        hidden: int,
        bottleneck: int,
        shared_head: bool,
        small_crops: int,
        masked_images: float,
        masked_low: float,
        masked_high: float,
        momentum: float,
        final_momentum: float,
        student_temperature: float,
        temperatures: tuple[float, float, float],
        frozen: float,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__(backbone, momentum, final_momentum)
        self.small, self.frozen, self.temperatures = small_crops, frozen, temperatures
        self.masking = (masked_images, masked_low, masked_high)
        self.head = dino_head(dim, hidden, bottleneck, prototypes)
        self.teacher = teacher_of(self.trunk)
        self.teacher_head = teacher_of(self.head)
        self.own: nn.Module | None = None
        self.teacher_own: nn.Module | None = None
        if not shared_head:
            self.own = dino_head(dim, hidden, bottleneck, prototypes)
            self.teacher_own = teacher_of(self.own)
        self.distil = DINOLoss(
            prototypes, student_temp=student_temperature, center_momentum=center_momentum
        )
        self.patches = IBOTPatchLoss(
            prototypes, student_temp=student_temperature, center_momentum=center_momentum
        )

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        found = [(self.teacher, self.trunk), (self.teacher_head, self.head)]
        if self.own is not None and self.teacher_own is not None:
            found.append((self.teacher_own, self.own))
        return found

    @property
    def side(self) -> int:
        """Patches along a side of a large view."""
        assert isinstance(self.trunk, Tokens)
        return self.trunk.side

    def targets(self, scores: Tensor, temperature: float) -> Tensor:
        """What the losses take for the teacher's scores (N, K)."""
        return scores

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        for head in filter(None, (self.head, self.own)):
            stop_last_layer(head, now.done < self.frozen)
        large, count, side = torch.cat(views[: self.large]), len(views[0]), self.side
        mask = block_masks(len(large), side, *self.masking).to(large.device)
        summary, patches = self.trunk(large, mask)
        student = list(self.head(summary).float().split(count))
        student += [self.head(self.trunk(view)[0]).float() for view in views[self.large :]]
        student_patches = (self.own or self.head)(patches[mask]).float()
        with torch.no_grad():
            whole, whole_patches = self.teacher(large)
            teacher = self.teacher_head(whole).float()
            teacher_patches = (self.teacher_own or self.teacher_head)(whole_patches[mask]).float()
        temperature = temperature_at(*self.temperatures, now.done)
        with full_precision(large):
            teacher = self.targets(teacher, temperature)
            teacher_patches = self.targets(teacher_patches, temperature)
            image = self.distil(list(teacher.split(count)), student, temperature)
            patch = self.patches(
                teacher_patches, student_patches, mask.view(-1, side, side), temperature
            )
            further = self.further(summary.float().split(count))
        loss = image + patch + sum(further.values())
        return {"loss": loss, "image": image, "patches": patch} | further

    def further(self, summaries: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """More losses, on the student's summaries (B, d) of the large views."""
        return {}


@register("ibot")
class IBOT(MaskedDistillation):
    """DINO, and the same of the tokens of masked patches: their distribution over prototypes is
    that which the teacher, who sees them, gives them.

    Source: Zhou et al. 2022, "iBOT: image BERT pre-training with online tokenizer".

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
        prototypes: Count = 8192,
        hidden: Width = 2048,
        bottleneck: Width = 256,
        shared_head: bool = True,
        small_crops: int = 8,
        masked_images: Fraction = 0.5,
        masked_low: Fraction = 0.1,
        masked_high: Fraction = 0.5,
        momentum: Fraction = 0.996,
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
        )
