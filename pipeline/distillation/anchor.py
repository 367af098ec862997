"""The student's ground to stand on: its teachers' probes, weighted by what each proved to know.

The weights are fitted on out-of-fold predictions of the training part, so that a weak teacher gets
little or nothing, and a student that learns nothing more is as good as this weighted sum, which is
never far from the best of its teachers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.base import masked_mean
from pipeline.aggregators.network import Lesson, Shape
from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.distillation.probe import CLIP, Reading, fit_probe, stack


class Anchor(nn.Module):
    """A constant plus the weighted probes of all teachers; linear in the bags' mean features.

    Args:
        shape: teachers, widths, outputs.
        levels: which levels each probe reads, side by side.
    """

    def __init__(self, shape: Shape, levels: tuple[str, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.reads = [[level for level in levels if level in dims] for dims in shape.dims]
        self.register_buffer("null", torch.zeros(shape.outputs))
        for t, read in enumerate(self.reads):
            width = sum(shape.dims[t][level] for level in read)
            self.register_buffer(f"mean_{t}", torch.zeros(width))
            self.register_buffer(f"inverse_{t}", torch.zeros(width))
            self.register_buffer(f"weights_{t}", torch.zeros(width, shape.outputs))
        self.held = torch.zeros(0)  # for training cases only, so not part of the state
        self.readings: dict[str, dict[str, float]] = {}

    def fit(self, lesson: Lesson, scaler: Scaler) -> None:
        """Probe every teacher and weigh the probes, on the training part alone."""
        train, y = lesson.train, lesson.y[lesson.train]
        rng = np.random.default_rng(lesson.seed)
        found: dict[int, Reading] = {}
        for t, read in enumerate(self.reads):
            x = np.concatenate([scaler.means(lesson.store, t, level) for level in read], axis=1)
            has = lesson.store.teachers[t].sizes[train] > 0
            reading = fit_probe(x[train], has, lesson.strata, y, lesson.task, rng)
            if reading is not None:
                found[t] = reading
        self._set("null", lesson.task.null)
        held = np.zeros((len(lesson.store.cases), self.shape.outputs)) + lesson.task.null
        if found:
            predictions = np.stack([reading.out_of_fold for reading in found.values()])
            weights = stack(lesson.task, predictions, y)
            held[train] += np.einsum("t,tnc->nc", weights, predictions)
            for (t, reading), weight in zip(found.items(), weights, strict=True):
                self._set(f"mean_{t}", reading.probe.mean)
                self._set(f"inverse_{t}", 1 / reading.probe.deviation)
                self._set(f"weights_{t}", reading.probe.weights * weight)
                self.readings[self.shape.teachers[t]] = {
                    "weight": float(weight),
                    "spread": float(weight * reading.out_of_fold.std()),
                    "evidence": reading.evidence,
                    "penalty": reading.penalty,
                }
        self.held = torch.from_numpy(held.astype(np.float32))

    def forward(self, scaled: tuple[dict[str, Tensor], ...], batch: Batch) -> Tensor:
        """(B, C) for any case."""
        out = self.get_buffer("null").expand(len(batch), -1)
        for t, read in enumerate(self.reads):
            x = torch.cat([masked_mean(scaled[t][lv], batch.masks[t]) for lv in read], dim=1)
            z = (x - self.get_buffer(f"mean_{t}")) * self.get_buffer(f"inverse_{t}")
            said = z.clamp(-CLIP, CLIP) @ self.get_buffer(f"weights_{t}")
            out = out + said * batch.present[:, t : t + 1]
        return out

    def unseen(self, batch: Batch) -> Tensor:
        """(B, C) for training cases: what probes that had not seen them say."""
        self.held = self.held.to(batch.cases.device)
        return self.held[batch.cases]

    def facts(self) -> dict[str, Any]:
        return {"teachers": self.readings}

    def _set(self, name: str, values: np.ndarray) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
