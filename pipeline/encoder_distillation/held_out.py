"""The tiles that a student never learns from: when to stop, and how far it has come."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from pipeline.contracts.distilled import Agreement
from pipeline.distillation import agreement
from pipeline.encoder_distillation.learner import VALIDATED
from pipeline.encoder_distillation.live import fitted
from pipeline.encoder_distillation.standardise import Standard
from pipeline.encoder_distillation.student import Plan, Student
from pipeline.encoder_distillation.targets import Answers
from pipeline.encoders.taps import find_taps, forward_levels
from pipeline.encoders.transforms import Transform
from pipeline.tile_training.loader import Batch, Even, Tiles, batches
from pipeline.tile_training.slides import TiledSlide

COMPARED = 2000  # held-out tiles of which neighbours are looked for


class HeldOut:
    """Held-out tiles, spread evenly over their slides, with the teachers' answers.

    Args:
        slides: that are held out.
        answers: the teachers' of their tiles.
        transform: of the student.
        tiles: how many, about.
        readers: processes that read ahead.
        device: where they are wanted.
    """

    def __init__(
        self,
        slides: list[TiledSlide],
        answers: Answers,
        transform: Transform,
        tiles: int,
        readers: int,
        device: torch.device,
    ) -> None:
        each = max(1, math.ceil(tiles / len(slides)))
        self._even = Even(tuple(len(slide.grid.coords) for slide in slides), each)
        self._tiles = Tiles(slides, self._even, transform, answers)
        self._readers, self._device = readers, device

    def __call__(self) -> Iterator[Batch]:
        numbers = range(len(self._even))
        return batches(self._tiles, numbers, self._readers, self._device)


@torch.no_grad()
def agreements(
    whole: Student,
    started: nn.Module,
    plan: Plan,
    standards: dict[str, Standard],
    held_out: HeldOut,
) -> dict[str, Agreement]:
    """Teacher -> how alike it and the student see held-out tiles, now and before it learned.

    Args:
        whole: the student that has learned.
        started: its encoder as it was.
        plan: of the encoder.
        standards: teacher -> how its features are standardised.
        held_out: the tiles.
    """
    views: dict[str, list[np.ndarray]] = {}

    def see(name: str, values: torch.Tensor) -> None:
        views.setdefault(name, []).append(values.float().cpu().numpy())

    taps = find_taps(started, None if plan.pooling == "registers" else plan.pooling)
    started = started.eval()
    for batch in held_out():
        for start in range(0, len(batch), VALIDATED):
            some = batch.part(start, start + VALIDATED)
            images = fitted(some.tiles.permute(0, 3, 1, 2).float(), plan.transform)
            embedding, answers = whole(images)
            see("student", embedding)
            see("before", forward_levels(started, images, taps, ("high",))["high"])
            for teacher, of_sizes in answers.items():
                see(f"target {teacher}", standards[teacher](some.answers[teacher]))
                see(f"answer {teacher}", of_sizes[-1])
    whole_views = {name: np.concatenate(parts) for name, parts in views.items()}
    count = len(whole_views["student"])
    chosen = np.linspace(0, count - 1, min(count, COMPARED)).astype(int)
    found: dict[str, Agreement] = {}
    for teacher in standards:
        target = whole_views[f"target {teacher}"]
        answer = whole_views[f"answer {teacher}"]
        row = {"explained": agreement.explained_variance(answer, target)}
        for view in ("student", "before"):
            seen = whole_views[view]
            row[f"cka_{view}"] = agreement.cka(seen, target)
            row[f"overlap_{view}"] = agreement.neighbour_overlap(seen[chosen], target[chosen])
        found[teacher] = Agreement(**{key: round(value, 6) for key, value in row.items()})
    return found
