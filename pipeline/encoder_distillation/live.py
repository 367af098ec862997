"""Patch tokens as targets: teachers that run beside the student, since their tokens fill no disk.

One teacher runs in each step, in turn. It sees the student's own view of a tile, augmentation and
all, and its tokens are brought to the student's grid: a token of both is of the same tissue.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.extraction import TeacherConfig
from pipeline.contracts.teacher_check import read_teacher_check
from pipeline.encoders.build import Encoder, build
from pipeline.encoders.numerics import autocast
from pipeline.encoders.taps import forward_maps
from pipeline.encoders.transforms import Transform, normalise
from pipeline.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Live:
    """Teachers that run.

    Attributes:
        encoders: on the student's device.
        weight: of the tokens in the loss.
    """

    encoders: tuple[Encoder, ...]
    weight: float

    @property
    def px(self) -> int:
        """Side of the tiles that the largest of them takes."""
        return max(encoder.transform.crop for encoder in self.encoders)

    def at(self, step: int) -> Encoder:
        """The one that runs in a step."""
        return self.encoders[step % len(self.encoders)]


def build_live(
    settings: Mapping[str, TeacherConfig],
    root: Path,
    weights_dir: str | None,
    device: torch.device,
    weight: float,
) -> Live:
    """The teachers of which tokens are learned.

    Args:
        settings: teacher -> its config.
        root: the results folder, with what their preflights found.
        weights_dir: folder of local weights.
        device: where they run.
        weight: of the tokens in the loss.

    Raises:
        ConfigError: a teacher has no tokens or maps.
        ArtifactError: weights are missing, or not those that were checked.
    """
    encoders = []
    for name, cfg in settings.items():
        check = read_teacher_check(root, name)
        identity = None if check is None else check.identity
        if check is not None and cfg.weights == "hub":
            cfg = cfg.model_copy(update={"revision": check.revision})
        encoder = build(
            name,
            cfg,
            levels=("high",),
            weights_dir=weights_dir,
            identity=identity,
            device=device,
        )
        encoders.append(encoder)
        blank = torch.zeros(1, 3, encoder.transform.crop, encoder.transform.crop, device=device)
        try:
            tokens_of(encoder, blank)
        except (RuntimeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"teacher `{name}`: it has no patch tokens that can be learned ({error}); leave it "
                "out of `patches.teachers`"
            ) from None
    return Live(tuple(encoders), weight)


@torch.no_grad()
def tokens_of(encoder: Encoder, images: Tensor) -> Tensor:
    """A teacher's tokens, as maps: float32 (B, D, h, w).

    Args:
        encoder: the teacher.
        images: float (B, 3, S, S), 0…255.
    """
    shown = fitted(images, encoder.transform)
    with autocast(encoder.precision, encoder.device):
        maps = forward_maps(encoder.module, shown.contiguous(), encoder.taps)[1]
    return maps.float()


def fitted(images: Tensor, transform: Transform) -> Tensor:
    """Images of whatever size as a network takes them: whole, resized and normalised.

    Args:
        images: float (B, 3, S, S), 0…255.
        transform: of the network.
    """
    px = transform.crop
    if images.shape[-1] != px:
        images = F.interpolate(images, (px, px), mode="bilinear", antialias=True)
    return normalise(images, transform)


def token_loss(
    head: nn.Module, seen: Tensor, wanted: Tensor, distance: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """How far a student's tokens are from a teacher's, each normalised by itself.

    Source: Ranzinger et al. 2024, "AM-RADIO: Agglomerative vision foundation model", for tokens on
    the student's grid.

    Args:
        head: from the student's tokens to the teacher's width.
        seen: (B, d, h, w) of the student.
        wanted: (B, D, H, W) of the teacher.
        distance: of answers and targets (N, D).
    """
    size = (seen.shape[-2], seen.shape[-1])
    if tuple(wanted.shape[-2:]) != size:
        if wanted.shape[-1] > size[1]:
            wanted = F.adaptive_avg_pool2d(wanted, size)
        else:
            wanted = F.interpolate(wanted, size, mode="bilinear")
    target = wanted.permute(0, 2, 3, 1).flatten(0, 2)
    answer = head(seen).permute(0, 2, 3, 1).flatten(0, 2)
    return distance(answer, F.layer_norm(target, target.shape[-1:]))
