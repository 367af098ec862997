"""What the students share: fixed targets from the teachers and the loss that asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.network import Lesson, Network, Output, Shape
from pipeline.bags.batch import Batch
from pipeline.config import DistillationConfig
from pipeline.distillation.losses import feature_loss
from pipeline.distillation.targets import fit_whitening


class Student(Network):
    """A network that is also asked for its teachers' features.

    With whitened targets, a linear layer per teacher and level reads the teacher's target from the
    student's state after that level (one state cannot be equal to five different vectors, but may
    contain them all). With learned or attached targets the state itself is compared with the pooled
    token, as published; `attached` lets the gradient into the target.

    Args:
        shape: teachers, widths, outputs.
        width: d_model.
        distillation: weight and kind of targets.
        taught: (teacher number, level) pairs that are distilled.
    """

    training_only: ClassVar[tuple[str, ...]] = ("readers.",)

    def __init__(
        self,
        shape: Shape,
        width: int,
        distillation: DistillationConfig,
        taught: Sequence[tuple[int, str]],
    ) -> None:
        super().__init__(shape)
        self.width = width
        self.distillation = distillation
        self.taught = list(taught)
        self.readers = nn.ModuleDict()
        self.goals: dict[tuple[int, str], Tensor] = {}

    def fit(self, lesson: Lesson) -> None:
        super().fit(lesson)
        store, train = lesson.store, lesson.train
        cfg = self.distillation
        self.readers = nn.ModuleDict()
        self.goals = {}
        if cfg.weight == 0 or cfg.targets != "whitened":
            return
        for t, level in self.taught:
            means = store.means(t, level)
            has = train[store.teachers[t].sizes[train] > 0]
            whitening = fit_whitening(means[has])
            if whitening is None:
                continue
            goal = np.nan_to_num(whitening(means)).astype(np.float32)
            self.goals[t, level] = torch.from_numpy(goal)
            self.readers[f"{t}_{level}"] = nn.Linear(self.width, goal.shape[1])

    def auxiliary(self, output: Output, batch: Batch, classes: Tensor | None) -> Tensor | None:
        cfg = self.distillation
        losses = []
        for t, level in self.taught if cfg.weight else ():
            state = output.levels[level]
            if cfg.targets == "whitened":
                if (t, level) not in self.goals:
                    continue
                goal = self.goals[t, level] = self.goals[t, level].to(state.device)
                student, target = self.readers[f"{t}_{level}"](state), goal[batch.cases]
            else:
                student, target = state, output.tokens[t, level]
                target = target if cfg.targets == "attached" else target.detach()
            losses.append(feature_loss(student, target, batch.present[:, t], cfg.huber_delta))
        total = torch.stack(losses).mean() * cfg.weight if losses else None
        if cfg.prediction_weight and output.anchor is not None:
            apart = (output.out - output.anchor).square().mean() * cfg.prediction_weight
            total = apart if total is None else total + apart
        return total

    def facts(self) -> dict[str, Any]:
        return {"distilled": [f"{self.shape.teachers[t]}/{level}" for t, level in self.taught]}
