"""Models that run with their authors' own code, fetched at a pinned commit by transformers.

That code and transformers stand in an environment of their own (`envs/`), since they move
at another pace than the rest. What they build gets the methods that taps read, so that levels and
pooling are ours as for every other teacher.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.encoders.registry import Model, Row
from pipeline.errors import ConfigError

# Raised when features of teachers with `loader: remote` change. 1: the first.
VERSION = 1


def load(row: Model, revision: str) -> nn.Module:
    """Fetch and build a tile encoder.

    Args:
        row: its registry row.
        revision: a commit: code is never run from a branch.

    Raises:
        ConfigError: as in `fetch`.
    """
    return RotaryVit(fetch(row, revision).model)


def fetch(row: Row, revision: str) -> Any:
    """A model as its authors' code builds it.

    Args:
        row: its registry row.
        revision: a commit: code is never run from a branch.

    Raises:
        ConfigError: no commit is given, transformers is not installed here, or the model cannot be
            fetched.
    """
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise ConfigError(
            f"teacher `{row.name}`: runs code from {row.hf_id}, so that its `revision:` must be a "
            f"commit (40 hexadecimal digits), not `{revision}`"
        )
    try:
        from transformers import AutoModel
    except ImportError:
        raise ConfigError(
            f"teacher `{row.name}`: {row.title} runs with {row.package}, which is not installed "
            f"here. Run Snakemake with `--sdm conda`, which makes envs/{row.env}.yaml for "
            "this teacher alone; or install it into this environment"
        ) from None
    try:
        return AutoModel.from_pretrained(row.hf_id, revision=revision, trust_remote_code=True)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"teacher `{row.name}`: {row.hf_id} at {revision} cannot be loaded ({said}). It is "
            f"gated: ask for access at https://huggingface.co/{row.hf_id} and set HF_TOKEN"
        ) from None


class RotaryVit(nn.Module):
    """RudolfV-2's transformer behind timm's methods.

    Args:
        backbone: the authors' network: `patch_embed`, `cls_token`, `register_tokens`, `norm`, and
            `blocks` with norms, layer scales and, for each grid of patches, rotary positions.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone
        self.num_prefix_tokens = 1 + int(backbone.register_tokens.shape[1])
        self.feature_info = [{"module": f"blocks.{i}"} for i in range(len(backbone.blocks))]
        self.global_pool = "token"

    @property
    def patch_embed(self) -> Any:
        """The authors' patch embedding, which knows the side of a patch."""
        return self.backbone.patch_embed

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the normed class token (B, C)."""
        return self.forward_features(images)[:, 0]

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> all tokens after the last norm (B, P + N, C)."""
        return self.forward_intermediates(images, indices=[])[0]

    def forward_intermediates(
        self,
        images: Tensor,
        indices: Sequence[int],
        return_prefix_tokens: bool = True,
        output_fmt: str = "NLC",
        stop_early: bool = False,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """All tokens after the last norm, and (patches, prefix) after each block of `indices`.

        Args:
            images: float (B, 3, H, W), normalised.
            indices: numbers of the blocks, from 0.
            return_prefix_tokens: always True here; timm's networks have the same argument.
            output_fmt: always `NLC` here, tokens as rows.
            stop_early: always False here: the last norm is needed.
        """
        across = patch_side(self.patch_embed.patch_size)
        rows, columns = images.shape[-2] // across, images.shape[-1] // across
        patches = self.backbone.patch_embed(images)
        own = self.backbone.cls_token.expand(len(images), -1, -1)
        registers = self.backbone.register_tokens.expand(len(images), -1, -1)
        tokens = torch.cat([own, registers, patches], dim=1)
        seen: list[tuple[Tensor, Tensor]] = []
        for index, block in enumerate(self.backbone.blocks):
            positions = block.rope(rows, columns, tokens.device)
            tokens = tokens + block.ls1(block.attn(block.norm1(tokens), rope=positions))
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
            if index in indices:
                prefix = self.num_prefix_tokens
                seen.append((tokens[:, prefix:], tokens[:, :prefix]))
        return self.backbone.norm(tokens), seen


def patch_side(size: int | Sequence[int]) -> int:
    """A patch's side, which some networks give twice."""
    return size if isinstance(size, int) else int(size[0])
