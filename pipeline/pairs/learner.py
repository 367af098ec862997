"""Learning from pairs: CLIP's contrastive loss, and with it CoCa's captioning loss, of open_clip.

Radford et al. 2021, "Learning transferable visual models from natural language supervision"; Yu et
al. 2022, "CoCa: contrastive captioners are image-text foundation models".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, CoCaLoss
from torch import Tensor, nn

from pipeline.config.pairs import PairsConfig
from pipeline.encoders.caption_recall import Recall, Shares, recall
from pipeline.encoders.transforms import Transform, normalise
from pipeline.pairs.captions import Pairs
from pipeline.tile_training.augment import augment
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.processes import Processes
from pipeline.tile_training.trainer import Pass

# What `train: heads` leaves to be trained, by name.
HEADS = re.compile(
    r"(visual\.(proj|ln_post|attn_pool|head)|text\.(text_projection|ln_final)|text_decoder|"
    r"logit_scale)(\.|_|$).*"
)
LARGEST_SCALE = float(np.log(100))  # of the cosines, as CLIP limits it
TEXTS_AT_ONCE = 128


@dataclasses.dataclass(frozen=True)
class Judged:
    """How well held-out tiles and captions fit one another.

    Attributes:
        nearness: minus the mean cross entropy of a tile's own caption, where it has several the
            likeliest of them, among all held-out captions.
        caption_loss: of a CoCa, mean cross entropy per word of a tile's first caption.
        recall: of the captions of the tiles that are looked at.
        by_captions: whether `caption_loss` alone decides.
    """

    nearness: float
    caption_loss: float | None
    recall: Recall
    by_captions: bool

    def numbers(self) -> dict[str, float]:
        """As columns of a table; `score` decides which step is kept."""
        found = _named(self.recall.tile_to_text, self.recall.text_to_tile)
        if self.caption_loss is None:
            return {"score": self.nearness, **found}
        score = -self.caption_loss if self.by_captions else self.nearness
        return {"score": score, **found, "caption_loss": self.caption_loss}

    def chance(self) -> dict[str, float]:
        """Recall of an order at random, by the same names."""
        return _named(self.recall.tile_to_text_chance, self.recall.text_to_tile_chance)


def _named(tile_to_text: Shares, text_to_tile: Shares) -> dict[str, float]:
    ways = {"tile_to_text": tile_to_text, "text_to_tile": text_to_tile}
    return {f"{way}_{k}": share for way, shares in ways.items() for k, share in shares.items()}


class PairLearner:
    """A model of open_clip that learns from pairs.

    Args:
        model: it, on its device.
        cfg: the section.
        pairs: what is learned from.
        held: what is held out.
        held_out: gives the held-out tiles, batch by batch.
        transform: of the image tower.
        here: this process among all.
    """

    def __init__(
        self,
        model: nn.Module,
        cfg: PairsConfig,
        pairs: Pairs,
        held: Pairs,
        held_out: Callable[[], Iterator[Batch]],
        transform: Transform,
        here: Processes,
    ) -> None:
        self.module, self.cfg, self.transform, self.here = model, cfg, transform, here
        self.pairs, self.held, self.held_out = pairs, held, held_out
        if cfg.train == "heads":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(bool(HEADS.fullmatch(name)))
        shared = {
            "gather_with_grad": here.world > 1,
            "rank": here.rank,
            "world_size": here.world,
        }
        self.captions = cfg.objective == "coca"
        self.loss: Any = (
            CoCaLoss(cfg.caption_weight, cfg.contrastive_weight, pad_id=0, **shared)
            if self.captions
            else ClipLoss(**shared)
        )

    def backward(self, batch: Batch, now: Pass) -> dict[str, Tensor]:
        """Add the gradients of a batch; see `trainer.Learner`."""
        images = augment(batch.tiles, self.cfg.augmentation, now.generator)
        images = normalise(images, self.transform)
        chosen = self.pairs.draw(batch.slides, batch.places, now.generator)
        ids = self.pairs.ids[chosen].to(images.device)
        with now.autocast():
            losses = self.losses(self.module, images, ids)
            total = torch.stack(list(losses.values())).sum()
        (total * now.share).backward()
        return {"loss": total.detach(), **{k: v.detach() for k, v in losses.items()}}

    def losses(self, model: Any, images: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """The weighted losses of some pairs.

        Args:
            model: the model.
            images: float (B, 3, S, S), normalised.
            ids: int64 (B, context).
        """
        scale = model.logit_scale.clamp(max=LARGEST_SCALE).exp()
        if not self.captions:
            image, text = model.encode_image(images), model.encode_text(ids)
            image, text = (F.normalize(v.float(), dim=-1) for v in (image, text))
            return {"contrastive": self.loss(image, text, scale)}
        out = model(images, ids)
        image, text = out["image_features"].float(), out["text_features"].float()
        contrastive, caption = self.loss(image, text, out["logits"].float(), out["labels"], scale)
        return {"contrastive": contrastive, "caption": caption}

    def stepped(self, step: int) -> None:
        """Nothing follows the parameters; see `trainer.Learner`."""

    def validate(self, module: Any) -> dict[str, float]:
        """What `judge` says, as numbers by name; see `trainer.Learner`.

        Args:
            module: averaged parameters, in evaluation mode.
        """
        return self.judge(module).numbers()

    @torch.no_grad()
    def judge(self, module: Any) -> Judged:
        """How well tiles and captions that are held out fit one another.

        Args:
            module: a model, in evaluation mode.
        """
        used = sorted({t for own in self.held.of for tile in own for t in tile})
        place = {t: i for i, t in enumerate(used)}
        texts = self.texts(module, used)
        scale = float(module.logit_scale.detach().clamp(max=LARGEST_SCALE).exp())
        images, own, entropy, total, words = [], [], 0.0, 0.0, 0
        for batch in self.held_out():
            inputs = normalise(batch.tiles.permute(0, 3, 1, 2).float(), self.transform)
            image = F.normalize(module.encode_image(inputs).float(), dim=-1)
            images.append(image.cpu().numpy())
            said = (scale * image @ texts.T).log_softmax(dim=1)
            captions = [
                self.held.of[slide][tile]
                for slide, tile in zip(batch.slides.tolist(), batch.places.tolist(), strict=True)
            ]
            for log, mine in zip(said, captions, strict=True):
                own.append([place[t] for t in mine])
                entropy -= float(log[own[-1]].max())
            if self.captions:
                ids = self.held.ids[[mine[0] for mine in captions]].to(inputs.device)
                out = module(inputs, ids)
                total += float(
                    F.cross_entropy(
                        out["logits"].float().transpose(1, 2),
                        out["labels"],
                        ignore_index=0,
                        reduction="sum",
                    )
                )
                words += int((out["labels"] != 0).sum())
        tile = np.repeat(np.arange(len(own)), [len(mine) for mine in own])
        there, text = np.unique(np.concatenate(own), return_inverse=True)
        return Judged(
            nearness=-entropy / len(own),
            caption_loss=total / max(1, words) if self.captions else None,
            recall=recall(np.concatenate(images), texts.cpu().numpy()[there], tile, text),
            by_captions=self.captions and not self.cfg.contrastive_weight,
        )

    def texts(self, module: Any, chosen: list[int]) -> Tensor:
        """Captions as unit vectors, float32 (n, D).

        Args:
            module: the model.
            chosen: numbers of texts.
        """
        ids = self.held.ids[chosen].to(self.here.device)
        parts = [
            module.encode_text(ids[start : start + TEXTS_AT_ONCE]).float()
            for start in range(0, len(ids), TEXTS_AT_ONCE)
        ]
        return F.normalize(torch.cat(parts), dim=-1)

    def state(self) -> dict[str, Any]:
        """Nothing besides the parameters; see `trainer.Learner`."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """See `trainer.Learner`."""


@torch.no_grad()
def write_captions(
    model: Any, images: Tensor, opens: int, closes: int, context: int
) -> list[list[int]]:
    """The captions that a CoCa writes, one likeliest word after the other.

    Args:
        model: open_clip's CoCa, in evaluation mode.
        images: float (B, 3, S, S), normalised.
        opens, closes: token ids around a text.
        context: tokens that the text tower takes.

    Returns:
        the token ids of each, without those around it.
    """
    latent, tokens = model._encode_image(images)
    ids = torch.full((len(images), 1), opens, dtype=torch.int64, device=images.device)
    ended = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    while ids.shape[1] < context and not bool(ended.all()):
        out = model(images, ids, image_latent=latent, image_embs=tokens, output_labels=False)
        following = out["logits"][:, -1].argmax(dim=-1)
        following[ended] = 0
        ids = torch.cat([ids, following[:, None]], dim=1)
        ended |= following == closes
    return [[int(t) for t in row[1:] if t not in (0, closes)] for row in ids]
