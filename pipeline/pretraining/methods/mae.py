"""Masked autoencoder."""

from __future__ import annotations

import torch
from lightly.models.modules import MaskedVisionTransformerDecoderTIMM
from lightly.models.utils import get_at_index, patchify, random_token_mask, set_at_index
from torch import Tensor, nn

from pipeline.config.registry import register
from pipeline.config.section import Count, Fraction, Width
from pipeline.pretraining.methods.base import Method, Moment, full_precision
from pipeline.pretraining.tokens import Tokens

# Raised when teachers of this method change. 1: the first.
VERSION = 1


@register("mae")
class MAE(Method):
    """The pixels of masked patches are rebuilt from the visible ones, by an encoder that sees these
    alone and a small decoder: the mean squared error of masked patches, each normalised by its own
    mean and deviation.

    Source: He et al. 2022, "Masked autoencoders are scalable vision learners".

    Args:
        backbone: what is trained and kept.
        dim: of its features.
        masked: share of the patches that are masked.
        decoder_width: width of the decoder.
        decoder_depth: its blocks.
        decoder_heads: its attention heads.
    """

    large = 1
    tokens = True
    pooling = "mean"

    def __init__(
        self,
        backbone: nn.Module,
        dim: int,
        *,
        masked: Fraction = 0.75,
        decoder_width: Width = 512,
        decoder_depth: Count = 8,
        decoder_heads: Count = 16,
    ) -> None:
        super().__init__(backbone)
        self.masked = masked
        self.encoder.masked.mask_token.requires_grad = False  # its encoder sees no masked patch
        self.patch = int(self.backbone.patch_embed.patch_size[0])
        self.embed = nn.Linear(dim, decoder_width)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=self.encoder.side**2,
            embed_dim=decoder_width,
            depth=decoder_depth,
            num_heads=decoder_heads,
            num_prefix_tokens=self.encoder.prefix,
        )
        self.predict = nn.Linear(decoder_width, self.patch**2 * 3)

    @property
    def encoder(self) -> Tokens:
        """The backbone as something that can be masked."""
        assert isinstance(self.trunk, Tokens)
        return self.trunk

    def features(self, images: Tensor) -> Tensor:
        return self.encoder(images)[1].mean(1)

    def forward(self, views: list[Tensor], now: Moment) -> dict[str, Tensor]:
        (images,) = views
        kept, masked = random_token_mask(
            (len(images), self.encoder.side**2), self.masked, mask_class_token=True
        )
        kept, masked = kept.to(images.device), masked.to(images.device)
        predicted = self.rebuild(images, kept, masked)
        with full_precision(images):
            loss = (predicted.float() - self.pixels(images.float(), masked)).square().mean()
        return {"loss": loss}

    def rebuild(self, images: Tensor, kept: Tensor, masked: Tensor) -> Tensor:
        """Masked patches, of which only the others were seen: (B, masked, 3 · patch²).

        Args:
            images: (B, 3, S, S).
            kept: int64 (B, kept), places of the patches that are seen.
            masked: int64 (B, masked), of the others.
        """
        prefix = self.encoder.prefix
        before = torch.arange(prefix, device=images.device).expand(len(images), -1)
        seen = torch.cat([before, kept + prefix], dim=1)
        encoded = self.embed(self.encoder.masked.encode(images, idx_keep=seen))
        tokens = self.decoder.mask_token.expand(len(images), self.decoder.sequence_length, -1)
        tokens = set_at_index(tokens.to(encoded.dtype).clone(), seen, encoded)
        decoded = self.decoder(tokens)
        return self.predict(get_at_index(decoded, masked + prefix))

    def pixels(self, images: Tensor, masked: Tensor) -> Tensor:
        """Masked patches as they are: (B, masked, 3 · patch²), each of mean 0 and deviation 1."""
        wanted = get_at_index(patchify(images, self.patch), masked)
        mean, variance = wanted.mean(-1, keepdim=True), wanted.var(-1, keepdim=True)
        return (wanted - mean) / (variance + 1e-6).sqrt()
