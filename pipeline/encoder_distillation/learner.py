"""How a student learns from what its teachers have said of each tile."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.encoder_distillation import EncoderStudent, LossesConfig
from pipeline.encoder_distillation.live import Live, fitted, token_loss, tokens_of
from pipeline.encoder_distillation.standardise import Standard
from pipeline.encoder_distillation.student import Student
from pipeline.encoders.transforms import Transform
from pipeline.tile_training.augment import augment
from pipeline.tile_training.loader import Batch
from pipeline.tile_training.trainer import SCORE, Pass

LEAST_WEIGHT = 0.05  # of a teacher that is understood already, before weights are made to average 1
VALIDATED = 256  # tiles at once


class Distillation:
    """A student and its teachers' standardised answers.

    The augmentation is the student's alone: it learns what a teacher said of the clean tile.

    Args:
        module: the student, on the device.
        cfg: its config.
        transform: of its encoder.
        standards: teacher -> how its features are standardised.
        held_out: batches of held-out tiles with the teachers' answers, again and again the same.
        live: teachers whose patch tokens are learned, too; None: nobody's.
    """

    def __init__(
        self,
        module: Student,
        cfg: EncoderStudent,
        transform: Transform,
        standards: Mapping[str, Standard],
        held_out: Callable[[], Iterator[Batch]],
        live: Live | None = None,
    ) -> None:
        self.module: Any = module
        self._live = live
        self._cfg = cfg
        self._transform = transform
        self._standards = dict(standards)
        self._held_out = held_out
        self._losses = losses(cfg.losses)
        given = cfg.weights if isinstance(cfg.weights, dict) else {}
        self.weights = {teacher: float(given.get(teacher, 1.0)) for teacher in standards}

    def backward(self, batch: Batch, now: Pass) -> dict[str, Tensor]:
        """See `Learner.backward`."""
        total, found, _ = self.tile_loss(batch, now, now.generator)
        (total * now.share).backward()
        return {"loss": total.detach(), **found}

    def tile_loss(
        self,
        batch: Batch,
        now: Pass,
        generator: torch.Generator,
        heard: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, list[Tensor]]]:
        """How far the student's answers are from what the teachers said of each tile.

        Args:
            batch: on the device.
            now: which step it is part of.
            generator: of the augmentation's draws.
            heard: teacher -> 1, or 0 where its answer does not count; None: drawn, too.

        Returns:
            the loss, that of each teacher (detached), and the answers.
        """
        view = augment(batch.tiles, self._cfg.augmentation, generator)
        images = fitted(view, self._transform).contiguous(memory_format=torch.channels_last)
        heard = self.heard(generator) if heard is None else heard
        found: dict[str, Tensor] = {}
        with now.autocast():
            if self._live is None:
                answers = self.module(images)[1]
            else:
                _, read, maps = self.module.look(images)
                answers = self.module.say(read)
            total = torch.zeros((), device=images.device)
            for teacher, of_sizes in answers.items():
                target = self._standards[teacher](batch.answers[teacher])
                one = torch.stack([self._distance(answer, target) for answer in of_sizes]).mean()
                found[f"loss_{teacher}"] = one.detach()
                total = total + self.weights[teacher] * heard[teacher] * one
            total = total / len(answers)
            if self._live is not None:
                encoder = self._live.at(now.step)
                head, wanted = self.module.token_head(encoder.name), tokens_of(encoder, view)
                one = token_loss(head, maps, wanted, self._distance)
                found["loss_tokens"] = one.detach()
                total = total + self._live.weight * one
        return total, found, answers

    def _distance(self, answer: Tensor, target: Tensor) -> Tensor:
        parts = [weight * loss(answer, target) for loss, weight in self._losses]
        return torch.stack(parts).sum()

    def heard(self, generator: torch.Generator) -> dict[str, Tensor]:
        """1 for teachers that are heard in this batch, 0 for the others; at least one is."""
        draws = torch.rand(len(self.weights), generator=generator, device=generator.device)
        heard = draws >= self._cfg.teacher_dropout
        heard[draws.argmax()] = True
        return dict(zip(self.weights, heard.float(), strict=True))

    def stepped(self, step: int) -> None:
        """Nothing follows a student's parameters but their averages."""

    def answers(self, module: nn.Module, batch: Batch) -> dict[str, list[Tensor]]:
        """What a student says of tiles as they are.

        Args:
            module: the student, or its averages.
            batch: on the device.
        """
        parts = []
        for start in range(0, len(batch), VALIDATED):
            tiles = batch.tiles[start : start + VALIDATED].permute(0, 3, 1, 2).float()
            images = fitted(tiles, self._transform)
            parts.append(module(images.contiguous(memory_format=torch.channels_last))[1])
        return {
            teacher: [
                torch.cat(sizes) for sizes in zip(*(one[teacher] for one in parts), strict=True)
            ]
            for teacher in parts[0]
        }

    @torch.no_grad()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """Explained variance of each teacher, of each size of the embedding, and their mean.

        Balanced weights follow it: who is understood least counts most.
        """
        sums: dict[str, Tensor] = {}
        for batch in self._held_out():
            answers = self.answers(module, batch)
            for teacher, of_sizes in answers.items():
                target = self._standards[teacher](batch.answers[teacher]).double()
                add(sums, f"{teacher} total", target.sum(0))
                add(sums, f"{teacher} squares", target.square().sum())
                add(sums, f"{teacher} count", torch.tensor(float(target.numel())))
                for size, answer in enumerate(of_sizes):
                    error = (answer.double() - target).square().sum()
                    add(sums, f"{teacher} error {size}", error)
        student: Any = module
        row: dict[str, float] = {}
        for teacher in self.weights:
            count = float(sums[f"{teacher} count"])
            total = sums[f"{teacher} total"]
            tiles = count / len(total)
            variance = float(sums[f"{teacher} squares"] - (total.square() / tiles).sum())
            for number, size in enumerate(student.sizes):
                last = size == student.sizes[-1]
                name = f"explained_{teacher}" if last else f"explained_{teacher}_at_{size}"
                row[name] = 1 - float(sums[f"{teacher} error {number}"]) / max(variance, 1e-12)
        explained = {teacher: row[f"explained_{teacher}"] for teacher in self.weights}
        if self._cfg.weights == "balanced":
            raw = {t: max(1 - value, LEAST_WEIGHT) for t, value in explained.items()}
            mean = sum(raw.values()) / len(raw)
            self.weights = {teacher: value / mean for teacher, value in raw.items()}
        row |= {f"weight_{teacher}": weight for teacher, weight in self.weights.items()}
        return {SCORE: sum(explained.values()) / len(explained), **row}

    def state(self) -> dict[str, Any]:
        """See `Learner.state`."""
        return {"weights": dict(self.weights)}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Learner.restore`."""
        self.weights = dict(state["weights"])


def losses(cfg: LossesConfig) -> list[tuple[Callable[[Tensor, Tensor], Tensor], float]]:
    """The losses that count, each a file of the folder `losses`, and their weights."""
    return [
        (importlib.import_module(f"pipeline.encoder_distillation.losses.{name}").loss, weight)
        for name, weight in cfg.weights().items()
    ]


def add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
    """Add to a sum, which starts at 0.

    Args:
        sums: by name.
        name: of the sum.
        value: to add.
    """
    value = value.cpu()
    sums[name] = sums[name] + value if name in sums else value
