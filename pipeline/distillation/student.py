"""What the students share: fixed targets from the teachers and the loss that asks for them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.network import Lesson, Network, Output, Shape
from pipeline.bags.batch import Batch
from pipeline.config.models import ShazamV1Model, ShazamV2Model, distillation_losses
from pipeline.distillation.feature_loss import feature_loss
from pipeline.distillation.targets import fit_whitening

# Raised when predictions of both students change. 1: the first. 2: they learn from the answers of a
# linear model, too.
VERSION = 2

LEVELS = ("low", "mid", "high")


class Student(Network):
    """A network that is also asked for its teachers' features.

    With whitened targets, a linear layer per teacher and level reads the teacher's target from the
    student's state after that level (one state cannot be equal to five different vectors, but may
    contain them all). With learned or attached targets the state itself is compared with the pooled
    token; `attached` lets the gradient into the target, as published for v2. With projected targets
    it is compared with a linear map of the teacher's mean feature, drawn once and never trained, as
    published for v1.

    Args:
        shape: teachers, widths, outputs.
        cfg: the model's config.
        taught: (teacher number, level) pairs that are distilled.
    """

    training_only: ClassVar[tuple[str, ...]] = ("readers.",)

    def __init__(
        self,
        shape: Shape,
        cfg: ShazamV1Model | ShazamV2Model,
        taught: Sequence[tuple[int, str]],
    ) -> None:
        super().__init__(shape)
        self.width = cfg.d_model
        self.raw_features = cfg.raw_features
        self.distillation = distillation = cfg.distillation
        loss = distillation_losses()[distillation.loss].load()
        self.cost = functools.partial(loss, **distillation.arguments())
        self.taught = sorted(taught, key=lambda pair: (LEVELS.index(pair[1]), pair[0]))
        self.readers = nn.ModuleDict()
        self.goals: Tensor | None = None  # (cases, P, K)
        self.widths: Tensor | None = None  # (P,), 0 for a pair that cannot be whitened

    def fit(self, lesson: Lesson) -> None:
        standardise = lesson.standardise and not self.raw_features
        super().fit(dataclasses.replace(lesson, standardise=standardise))
        cfg = self.distillation
        if cfg.weight and cfg.targets == "projected":
            self.goals = self._projected(lesson)
        if cfg.weight == 0 or cfg.targets != "whitened":
            return
        store, train = lesson.store, lesson.train
        known: list[np.ndarray] = []
        for t, level in self.taught:
            means = store.means(t, level)
            whitening = fit_whitening(means[train[store.teachers[t].sizes[train] > 0]])
            known.append(means[:, :0] if whitening is None else whitening(means))
        widths = [goal.shape[1] for goal in known]
        if not any(widths):
            return
        goals = np.zeros((len(store.cases), len(known), max(widths)), dtype=np.float32)
        for p, goal in enumerate(known):
            goals[:, p, : goal.shape[1]] = np.nan_to_num(goal)
        self.goals, self.widths = torch.from_numpy(goals), torch.tensor(widths)
        self.readers = nn.ModuleDict(
            {
                level: nn.Linear(self.width, max(widths) * len(list(group)))
                for level, group in itertools.groupby(level for _, level in self.taught)
            }
        )

    @torch.no_grad()
    def _projected(self, lesson: Lesson) -> Tensor:
        """(cases, P, width): each teacher's mean feature, mapped linearly by random weights."""
        goals = []
        for t, level in self.taught:
            means = torch.from_numpy(np.nan_to_num(lesson.store.means(t, level))).float()
            goals.append(nn.Linear(means.shape[1], self.width)(means))
        return torch.stack(goals, dim=1)

    def extra_loss(self, output: Output, batch: Batch, classes: Tensor | None) -> Tensor | None:
        cfg = self.distillation
        compared = self._compared(output, batch) if cfg.weight else None
        if compared is None:
            return None
        present = batch.present[:, [t for t, _ in self.taught]]
        loss = feature_loss(
            compared[0], compared[1], present, self.cost, compared[2], cfg.reduction
        )
        return loss * cfg.weight

    def _compared(
        self, output: Output, batch: Batch
    ) -> tuple[Tensor, Tensor, Tensor | None] | None:
        """What is compared: student and target (B, P, K), and how much of K each pair uses."""
        if self.distillation.targets != "whitened":
            student = torch.stack([output.levels[level] for _, level in self.taught], dim=1)
            if self.distillation.targets == "projected":
                if self.goals is None:
                    return None
                self.goals = self.goals.to(batch.cases.device)
                return student, self.goals[batch.cases], None
            target = torch.stack([output.tokens[pair] for pair in self.taught], dim=1)
            attached = self.distillation.targets == "attached"
            return student, target if attached else target.detach(), None
        if self.goals is None or self.widths is None:
            return None
        self.goals = self.goals.to(batch.cases.device)
        self.widths = self.widths.to(batch.cases.device)
        k = self.goals.shape[2]
        read = [reader(output.levels[level]) for level, reader in self.readers.items()]
        student = torch.cat(read, dim=1).unflatten(1, (len(self.taught), k))
        used = torch.arange(k, device=student.device) < self.widths[:, None]
        return student * used, self.goals[batch.cases], self.widths

    def facts(self) -> dict[str, Any]:
        return {"distilled": [f"{self.shape.teachers[t]}/{level}" for t, level in self.taught]}
