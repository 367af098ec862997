"""Architectures that are a timm network with one part exchanged.

They keep timm's methods, so that taps and pooling work on them as on any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch.nn.functional as F
from torch import Tensor, nn


class ConvStem(nn.Module):
    """CTransPath's stem: two strided convolutions and a 1 x 1 one instead of a patch projection.

    Args:
        img_size: input side in pixels.
        patch_size: must be 4, the product of the strides.
        in_chans: input channels.
        embed_dim: output channels; the convolutions have an eighth and a quarter of it.
        norm_layer: applied to the output.

    Further arguments are what timm passes to any patch embedding; the output is (B, H, W, C), as
    its Swin expects.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        if patch_size != 4 or embed_dim % 8:
            raise ValueError("a ConvStem has patches of 4 px and a multiple of 8 channels")
        side = img_size if isinstance(img_size, int) else img_size[0]
        self.patch_size = (4, 4)
        self.grid_size = (side // 4, side // 4)
        layers: list[nn.Module] = []
        channels = in_chans
        for width in (embed_dim // 8, embed_dim // 4):
            layers += [
                nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        self.proj = nn.Sequential(*layers, nn.Conv2d(channels, embed_dim, 1))
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, H / 4, W / 4, C)."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class Normalize(nn.Module):
    """Scales each row to length 1."""

    def forward(self, values: Tensor) -> Tensor:
        return F.normalize(values, dim=-1)


def swin_conv_stem(base: str, **kwargs: Any) -> nn.Module:
    """A Swin Transformer with a `ConvStem`."""
    return timm.create_model(base, num_classes=0, embed_layer=ConvStem, **kwargs)


def clip_vision(base: str, projection: int, **kwargs: Any) -> nn.Module:
    """CLIP's image tower with its projection, which has no bias."""
    module = timm.create_model(base, num_classes=0, **kwargs)
    module.head = nn.Linear(module.num_features, projection, bias=False)
    return module


def keep_vision(base: str, projection: int, **kwargs: Any) -> nn.Module:
    """KEEP's image tower: a two-layer projection, then length 1."""
    module = timm.create_model(base, num_classes=0, **kwargs)
    module.head = nn.Sequential(
        nn.Linear(module.num_features, projection),
        nn.GELU(),
        nn.Linear(projection, projection),
        Normalize(),
    )
    return module


TOWERS: dict[str, Callable[..., nn.Module]] = {
    "swin_conv_stem": swin_conv_stem,
    "clip_vision": clip_vision,
    "keep_vision": keep_vision,
}
