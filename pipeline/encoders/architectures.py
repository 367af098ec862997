"""Architectures that are a timm network with one part exchanged.

They keep timm's methods, so that taps and pooling work on them as on any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pipeline.encoders.dino_positions import dino_positions


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


class DinoVit(VisionTransformer):
    """A vision transformer that fits its positions to the input in each pass as DINO's code does.

    timm's own interpolation is antialiased and has another kernel. Needs `dynamic_img_size`.
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(1, 2)], dim=1)
        return tokens + dino_positions(self.pos_embed, *x.shape[1:3])


class AttentionPool(nn.Module):
    """One learned query looks at all tokens (CoCa's attentional pooler, as CONCH has it).

    Args:
        context: channels of the tokens.
        width: channels of the query and of the output.
        heads: attention heads.
        bias: whether the projections have one.
    """

    def __init__(self, context: int, width: int, heads: int = 8, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(1, width))
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(context)
        self.q = nn.Linear(width, width, bias=bias)
        self.k = nn.Linear(context, width, bias=bias)
        self.v = nn.Linear(context, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, context) -> (B, width)."""
        tokens = self.ln_k(tokens)
        query = self.q(self.ln_q(self.query)).expand(len(tokens), 1, -1)
        split = [
            values.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for values in (query, self.k(tokens), self.v(tokens))
        ]
        found = F.scaled_dot_product_attention(*split)
        return self.out(found.transpose(1, 2).flatten(2))[:, 0]


class PatchTokens(nn.Module):
    """An image's patches, each projected alone: what a transformer begins with, and no transformer.

    A transformer over a whole region (`pipeline.encoders.slide_level.longvit`) reads them, so that
    the region's pixels never have to be in memory at once.

    Args:
        patch: side of a patch in pixels.
        width: channels of a patch's token.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch_embed = PatchProjection(patch, width)
        self.feature_info: list[Any] = []

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, patches, width), row by row."""
        return self.patch_embed(images)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """All tokens of an image as one row: (B, patches · width)."""
        return features.flatten(1)


class PatchProjection(nn.Module):
    """A patch's pixels as a token; the names are the checkpoint's.

    Args:
        patch: side of a patch in pixels.
        width: channels of a token.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch_size = (patch, patch)
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, patches, width), row by row."""
        return self.proj(images).flatten(2).transpose(1, 2)


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


def musk_vision(base: str, projection: int, **kwargs: Any) -> nn.Module:
    """MUSK's image branch: BEiT-3's class token after the last norm, and a projection of it."""
    module = timm.create_model(base, num_classes=0, global_pool="token", **kwargs)
    module.head = nn.Sequential(nn.Linear(module.num_features, projection, bias=False), Normalize())
    return module


def dino_vit(**kwargs: Any) -> nn.Module:
    """A vision transformer whose positions are interpolated as in DINO's code."""
    return DinoVit(num_classes=0, dynamic_img_size=True, **kwargs)


def attention_pooled(
    width: int,
    projected: bool = False,
    bias: bool = True,
    dino_positions: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """CONCH's image tower: attention pooling and a norm; then, for text, a projection.

    Args:
        width: output channels.
        projected: whether there is a contrastive projection, whose output has length 1.
        bias: of the attention's projections.
        dino_positions: whether positions are interpolated to the input, as in DINO's code.
        kwargs: of the vision transformer.
    """
    module = dino_vit(**kwargs) if dino_positions else VisionTransformer(num_classes=0, **kwargs)
    module.attn_pool = AttentionPool(kwargs["embed_dim"], width, bias=bias)
    module.pool_include_prefix = True
    module.fc_norm = nn.LayerNorm(width)
    if projected:
        module.head = nn.Sequential(nn.Linear(width, width, bias=False), Normalize())
    return module


TOWERS: dict[str, Callable[..., nn.Module]] = {
    "swin_conv_stem": swin_conv_stem,
    "clip_vision": clip_vision,
    "keep_vision": keep_vision,
    "musk_vision": musk_vision,
    "dino_vit": dino_vit,
    "attention_pooled": attention_pooled,
    "patch_tokens": PatchTokens,
}

# Raised when what an architecture computes changes, for the teachers that have it alone.
VERSIONS = {
    "swin_conv_stem": 1,
    "clip_vision": 1,
    "keep_vision": 1,
    "musk_vision": 1,
    "dino_vit": 1,
    "attention_pooled": 1,
    "patch_tokens": 1,
}
