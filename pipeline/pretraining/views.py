"""Views of tiles, cut and augmented on the device that learns from them; each has its own draw."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.pretraining import ViewsConfig
from pipeline.encoders.transforms import Transform, normalise
from pipeline.tile_training.augment import augment


def make_views(
    tiles: Tensor,
    cfg: ViewsConfig,
    transform: Transform,
    counts: tuple[int, int],
    generator: torch.Generator,
) -> list[Tensor]:
    """Normalised views of a batch, first large ones, then small ones.

    Args:
        tiles: uint8 (B, S, S, 3).
        cfg: how they are cut and augmented.
        transform: the network's input size, mean and deviation.
        counts: of large and of small views.
        generator: of the draws, on the tiles' device.

    Returns:
        float32 (B, 3, P, P) each.
    """
    large, small = counts
    plan = [(transform.crop, cfg.large_scale)] * large + [(cfg.small_px, cfg.small_scale)] * small
    images = tiles.permute(0, 3, 1, 2).float()
    found = []
    for px, scale in plan:
        cut = random_crop(images, px, scale, generator).permute(0, 2, 3, 1)
        found.append(normalise(augment(cut, cfg, generator), transform))
    return found


def random_crop(
    images: Tensor, px: int, scale: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """A random part of each image, resized: a square to a rectangle of 3:4, as usual.

    A part that is larger than what comes out is averaged over as many points as fit, so that no
    fine structure is folded into coarse one.

    Args:
        images: float (B, C, S, S).
        px: side of what comes out.
        scale: least and largest share of the area.
        generator: of the draws.

    Returns:
        (B, C, px, px).
    """
    count, device, side = len(images), images.device, images.shape[-1]
    draws = torch.rand((4, count), generator=generator, device=device)
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    ratio = torch.exp((2 * draws[1] - 1) * math.log(4 / 3))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = (2 * draws[2] - 1) * (1 - width), (2 * draws[3] - 1) * (1 - height)
    matrix = torch.zeros(count, 2, 3, device=device)
    matrix[:, 0, 0], matrix[:, 0, 2] = width, left
    matrix[:, 1, 1], matrix[:, 1, 2] = height, top
    fine = max(1, round(math.sqrt(scale[1]) * side / px))
    grid = F.affine_grid(matrix, [count, 1, px * fine, px * fine], align_corners=False)
    cut = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return F.avg_pool2d(cut, fine) if fine > 1 else cut
