"""What every method of self-supervision is: a backbone, what surrounds it in training, a loss."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather

from pipeline.pretraining.tokens import Tokens

M = TypeVar("M", bound=nn.Module)


@dataclasses.dataclass(frozen=True)
class Moment:
    """Where in the course a step is.

    Attributes:
        step: its number.
        done: share of the course before it, 0…1.
    """

    step: int
    done: float


class Method(nn.Module):
    """Base of the methods.

    `forward(views, now)` takes normalised images, float (B, 3, S, S) each: first `large` of the
    network's input size, then `small` ones; all views of a tile have the same place in the batch.
    It returns the losses, among them `loss`, whose gradient is taken.

    Attributes:
        large, small: how many views of a tile it looks at.
        tokens: whether its backbone must be a vision transformer of timm.
        pooling: how its backbone's features are read afterwards, as in the registry.
        trunk: the backbone; of a method with `tokens`, as something that can be masked.
        steady: the beginnings of the names of parameters whose learning rate does not fall.
    """

    large: ClassVar[int] = 2
    tokens: ClassVar[bool] = False
    pooling: ClassVar[str] = "model"
    steady: tuple[str, ...] = ()

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        # Held once: what averages parameters goes through them by their names.
        self.trunk = Tokens(backbone) if self.tokens else backbone
        self.small = 0

    @property
    def backbone(self) -> Any:
        """What is kept in the end."""
        return self.trunk.vit if self.tokens else self.trunk

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        raise NotImplementedError

    def features(self, images: Tensor) -> Tensor:
        """What is kept of images (B, 3, S, S) in the end: (B, d)."""
        return self.backbone(images)

    def assign(self, features: Tensor) -> Tensor | None:
        """Scores (B, K) of features for the method's clusters; None where it has none.

        Args:
            features: (B, d), as `features` gives them.
        """
        return None

    def after_step(self, now: Moment) -> None:
        """What follows the optimiser's step, e.g. a momentum teacher."""


class MomentumMethod(Method):
    """Base of the methods with a teacher that follows its student.

    The teacher's parameters and buffers are exponential moving averages of the student's, of a
    momentum that rises by half a cosine: He et al. 2020 (MoCo), Grill et al. 2020 (BYOL).

    Args:
        backbone: the student's.
        momentum: share of itself that the teacher keeps in a step, at the start.
        final_momentum: at the end.
    """

    def __init__(self, backbone: nn.Module, momentum: float, final_momentum: float) -> None:
        super().__init__(backbone)
        self.momentum, self.final_momentum = momentum, final_momentum
        self.buffers_too = True

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Teacher and student modules, in pairs."""
        raise NotImplementedError

    def after_step(self, now: Moment) -> None:
        keep = momentum_at(self.momentum, self.final_momentum, now.done)
        for teacher, student in self.pairs():
            move_towards(teacher, student, keep, self.buffers_too)


def momentum_at(first: float, last: float, done: float) -> float:
    """Half a cosine from one momentum to another.

    Args:
        first: at the start.
        last: at the end.
        done: share of the course.
    """
    return last - (last - first) * (1 + math.cos(math.pi * min(done, 1.0))) / 2


@torch.no_grad()
def move_towards(teacher: nn.Module, student: nn.Module, keep: float, buffers: bool) -> None:
    """Move a teacher's parameters towards its student's.

    Args:
        teacher: what is moved.
        student: of the same architecture.
        keep: share of itself that the teacher keeps.
        buffers: whether running means and deviations follow, too; else they are the teacher's own.
    """
    old: list[Tensor] = list(teacher.parameters())
    new: list[Tensor] = list(student.parameters())
    if buffers:
        old += [b for b in teacher.buffers() if b.is_floating_point()]
        new += [b for b in student.buffers() if b.is_floating_point()]
    for mine, other in zip(old, new, strict=True):
        mine.lerp_(other.to(mine.dtype), 1 - keep)


def teacher_of(student: M) -> M:
    """A copy that no gradient reaches."""
    return copy.deepcopy(student).requires_grad_(False)


def full_precision(x: Tensor) -> torch.autocast:
    """The context of a loss: sums over a batch are float32 whatever the network runs in."""
    return torch.autocast(x.device.type, enabled=False)


def place_among() -> tuple[int, int]:
    """This process's number among those that train together, and how many these are."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes that train together; gradients reach each process's own.

    Args:
        x: (B, …), of the same shape in each process.

    Returns:
        (world · B, …).
    """
    return x if place_among()[1] == 1 else torch.cat(list(all_gather(x)))
