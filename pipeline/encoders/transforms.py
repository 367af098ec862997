"""From uint8 tiles to what a network expects, on the device and in batches.

The authors' transforms resize with Pillow on 8-bit values, then crop and normalise. Here the same
steps run on the device: an antialiased resize rounded to 8-bit values, a centre crop, and one
multiplication and subtraction for the division by 255, mean and standard deviation together.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Transform:
    """What is done to a tile: resize its side to `resize`, cut out the middle `crop`, normalise.

    Attributes:
        resize, crop: pixels.
        interp: how to resize; always antialiased.
        mean, std: per channel, for values in 0…1.
    """

    resize: int
    crop: int
    interp: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def prepare(tiles: Tensor, transform: Transform) -> Tensor:
    """Resize, crop and normalise a batch of tiles.

    Args:
        tiles: uint8 (B, S, S, 3) on any device.
        transform: the steps.

    Returns:
        float32 (B, 3, crop, crop) on the same device.
    """
    images = _fitted(tiles.permute(0, 3, 1, 2), transform)
    std = torch.tensor(transform.std, device=tiles.device).view(3, 1, 1)
    mean = torch.tensor(transform.mean, device=tiles.device).view(3, 1, 1)
    scale, offset = 1 / (255 * std), mean / std
    # Plane by plane: with the channels innermost the same arithmetic takes five times as long.
    values = torch.empty(images.shape, dtype=torch.float32, device=tiles.device)
    if tiles.device.type != "cpu":
        return values.copy_(images).mul_(scale).sub_(offset)
    # On a CPU tile by tile, which stays in its cache from one step to the next.
    planes = torch.empty(images.shape[1:], dtype=torch.uint8)
    apart = [plane.numpy() for plane in planes]
    for value, image in zip(values, images, strict=True):
        cv2.split(image.permute(1, 2, 0).numpy(), apart)
        value.copy_(planes).mul_(scale).sub_(offset)
    return values


def resized(tiles: Tensor, transform: Transform) -> Tensor:
    """Resize and crop alone.

    Args:
        tiles: uint8 (B, S, S, 3) on any device.
        transform: the steps.

    Returns:
        uint8 (B, crop, crop, 3) on the same device.
    """
    images = _fitted(tiles.permute(0, 3, 1, 2), transform)
    return images.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def normalise(images: Tensor, transform: Transform) -> Tensor:
    """Images of the right size, normalised.

    Args:
        images: float (B, 3, crop, crop), 0…255.
        transform: the steps.
    """
    std = torch.tensor(transform.std, device=images.device).view(3, 1, 1)
    mean = torch.tensor(transform.mean, device=images.device).view(3, 1, 1)
    return images / (255 * std) - mean / std


def _fitted(images: Tensor, transform: Transform) -> Tensor:
    if images.shape[-1] != transform.resize or images.shape[-2] != transform.resize:
        images = _resize(images, transform)
    if transform.crop != transform.resize:
        start = (transform.resize - transform.crop) // 2
        images = images[..., start : start + transform.crop, start : start + transform.crop]
    return images


def _resize(images: Tensor, transform: Transform) -> Tensor:
    size = (transform.resize, transform.resize)
    if images.device.type == "cpu":
        # On the CPU, torch resizes 8-bit values themselves, with Pillow's fixed-point weights.
        return F.interpolate(images, size=size, mode=transform.interp, antialias=True)
    resized = F.interpolate(images.float(), size=size, mode=transform.interp, antialias=True)
    return resized.round_().clamp_(0, 255)
