"""Augmentation of a batch of tiles on the device that learns from them; each has its own draw.

Flips and right-angle turns; staining, as other amounts of haematoxylin, eosin and residual; a mild
turn of the hue; brightness; blur. No crops: a target that was computed for the whole tile would be
another tile's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.tile_training import AugmentationConfig

# Optical density of haematoxylin, eosin and DAB in red, green and blue: Ruifrok and Johnston 2001,
# "Quantification of histochemical staining by color deconvolution".
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
# Weights of red, green and blue in NTSC's luminance and its two axes of colour.
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def augment(tiles: Tensor, cfg: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Augmented tiles.

    Args:
        tiles: uint8 (B, S, S, 3).
        cfg: what is done, and how strongly.
        generator: of the draws, on the tiles' device.

    Returns:
        float32 (B, 3, S, S), 0…255.
    """
    images = tiles.permute(0, 3, 1, 2).float()
    if cfg.flips:
        images = turn(images, _integers(8, len(images), generator))
    if cfg.stain:
        draws = _uniform((len(images), 2, 3), generator) * cfg.stain
        images = restain(images, 1 + draws[:, 0], draws[:, 1])
    if cfg.hue:
        images = shift_hue(images, _uniform((len(images),), generator) * cfg.hue)
    if cfg.brightness:
        images = images * (1 + _uniform((len(images), 1, 1, 1), generator) * cfg.brightness)
    if cfg.blur and cfg.blur_sigma:
        chosen = torch.rand(len(images), generator=generator, device=images.device) < cfg.blur
        sigma = torch.rand(len(images), generator=generator, device=images.device) * cfg.blur_sigma
        images = blur(images, torch.where(chosen, sigma, 0.0), cfg.blur_sigma)
    return images.clamp(0, 255)


def turn(images: Tensor, which: Tensor) -> Tensor:
    """Each image in one of the eight positions of a square.

    Args:
        images: (B, C, S, S).
        which: int64 (B,), 0…7; the two low bits are quarter turns, the third a flip.
    """
    result = images.clone()
    for position in range(1, 8):
        chosen = which == position
        if bool(chosen.any()):
            some = torch.rot90(images[chosen], position % 4, (2, 3))
            result[chosen] = some.flip(3) if position >= 4 else some
    return result


def restain(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Other amounts of each stain.

    Source: Tellez et al. 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3 as
    a reference to train distilled stain-invariant convolutional networks".

    Args:
        images: (B, 3, S, S), 0…255.
        scale: (B, 3), what each stain's amount is multiplied by.
        shift: (B, 3), what is added to it.
    """
    stains = torch.tensor(STAINS, device=images.device)
    stains = stains / stains.norm(dim=1, keepdim=True)
    density = -torch.log((images + 1) / 256)
    amounts = torch.einsum("bchw,cs->bshw", density, torch.linalg.inv(stains))
    amounts = amounts * scale[:, :, None, None] + shift[:, :, None, None]
    density = torch.einsum("bshw,sc->bchw", amounts, stains)
    return (torch.exp(-density) * 256 - 1).clamp(0, 255)


def shift_hue(images: Tensor, turns: Tensor) -> Tensor:
    """The colours turned around the grey axis.

    Args:
        images: (B, 3, S, S).
        turns: (B,), in whole turns.
    """
    yiq = torch.tensor(YIQ, device=images.device)
    angle = turns * 2 * math.pi
    rotation = torch.eye(3, device=images.device).repeat(len(images), 1, 1)
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = -angle.sin(), angle.sin()
    whole = torch.linalg.inv(yiq) @ rotation @ yiq
    return torch.einsum("bdc,bchw->bdhw", whole, images)


def blur(images: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Each image blurred by a Gaussian of its own; 0 leaves it as it is.

    Args:
        images: (B, C, S, S).
        sigma: (B,), in pixels.
        largest: the largest sigma that can come, which decides the kernel's size.
    """
    radius = max(1, math.ceil(2.5 * largest))
    at = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (at / sigma.clamp_min(1e-3)[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], 0)
    planes = images.flatten(0, 1)[None]
    groups = planes.shape[1]
    planes = F.pad(planes, (radius,) * 4, mode="replicate")
    planes = F.conv2d(planes, kernel[:, None, :, None], groups=groups)
    return F.conv2d(planes, kernel[:, None, None, :], groups=groups)[0].view_as(images)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Between -1 and 1."""
    return torch.rand(shape, generator=generator, device=generator.device) * 2 - 1


def _integers(below: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(below, (count,), generator=generator, device=generator.device)
