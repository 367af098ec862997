"""A vision transformer of timm whose patches can be masked, and masks for it."""

from __future__ import annotations

import random
from typing import Any

import torch
from lightly.models.modules import MaskedVisionTransformerTIMM
from lightly.models.utils import random_block_mask
from torch import Tensor, nn


class Tokens(nn.Module):
    """A vision transformer that gives all its tokens.

    Args:
        vit: a `VisionTransformer` of timm, whose parameters stay as they are.
    """

    def __init__(self, vit: nn.Module) -> None:
        super().__init__()
        self.masked = MaskedVisionTransformerTIMM(
            vit=vit,
            weight_initialization="skip",
            pos_embed_initialization="skip",
        )
        nn.init.normal_(self.masked.mask_token, std=0.02)

    @property
    def vit(self) -> Any:
        """The transformer itself."""
        return self.masked.vit

    @property
    def prefix(self) -> int:
        """Tokens before the patches."""
        return int(self.vit.num_prefix_tokens)

    @property
    def side(self) -> int:
        """Patches along a side of the network's own input."""
        return int(self.vit.patch_embed.grid_size[0])

    def forward(self, images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A summary of each image and its patches.

        Args:
            images: (B, 3, S, S).
            mask: bool (B, patches), True where the mask token stands in; None: nowhere.

        Returns:
            (B, d), as the network pools them itself, and (B, patches, d).
        """
        if mask is not None:
            mask = torch.cat([mask.new_zeros(len(mask), self.prefix), mask], dim=1)
        tokens = self.masked.encode(images, mask=mask)
        return self.vit.pool(tokens), tokens[:, self.prefix :]


def block_masks(count: int, side: int, share: float, low: float, high: float) -> Tensor:
    """Blocks of patches to be masked, as iBOT and DINOv2 draw them.

    Drawn from torch's generator of the CPU, on which a step's draws depend.

    Args:
        count: images.
        side: patches along a side.
        share: of the images that are masked at all; at least one is.
        low: least share of a masked image's patches.
        high: most.

    Returns:
        bool (count, side²), on the CPU.
    """
    low = max(low, 1.001 / side**2)
    state = random.getstate()
    random.seed(int(torch.randint(2**31, ()).item()))
    try:
        mask = random_block_mask(
            (count, side, side),
            batch_mask_ratio=max(share, 1.001 / count),
            min_image_mask_ratio=low,
            max_image_mask_ratio=max(low, high),
            min_num_masks_per_block=min(4, int(low * side**2)),
        )
    finally:
        random.setstate(state)
    mask = mask.flatten(1)
    if not bool(mask.any()):  # a grid too small for a block
        mask[0, int(torch.randint(side * side, ()).item())] = True
    return mask
