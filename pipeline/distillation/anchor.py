"""The student's ground to stand on: linear probes of its teachers, apart and together.

Apart, each teacher has a probe, and the probes are weighted by how well they predict training cases
that they have not seen: a weak teacher gets little or nothing, and the sum is never far from the
best of the teachers. Together, one probe reads the leading components of all teachers' features,
each brought to unit variance: a ridge on the features themselves hardly moves along a component of
small variance, whatever it says of the label. Few cases cannot tell which of the two is better, so
that the student stands on their mean.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.base import masked_mean
from pipeline.aggregators.network import Lesson, Shape
from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.distillation.probe import (
    CLIP,
    Reading,
    best_scale,
    components,
    fit_probe,
    stack,
    standardised,
)

Kind = Literal["both", "stacked", "joint"]
PARTS: dict[str, tuple[float, float]] = {"both": (0.5, 0.5), "stacked": (1, 0), "joint": (0, 1)}


class Anchor(nn.Module):
    """A constant plus the weighted probes of all teachers; linear in the bags' mean features.

    Args:
        shape: teachers, widths, outputs.
        levels: which levels each probe reads, side by side.
        kind: the probes apart (`stacked`), together (`joint`), or the mean of the two.
    """

    def __init__(self, shape: Shape, levels: tuple[str, ...], kind: Kind = "both") -> None:
        super().__init__()
        self.shape = shape
        self.kind = kind
        self.reads = [[level for level in levels if level in dims] for dims in shape.dims]
        self.register_buffer("null", torch.zeros(shape.outputs))
        for t, read in enumerate(self.reads):
            width = sum(shape.dims[t][level] for level in read)
            self.register_buffer(f"mean_{t}", torch.zeros(width))
            self.register_buffer(f"inverse_{t}", torch.zeros(width))
            self.register_buffer(f"weights_{t}", torch.zeros(width, shape.outputs))
        self.held = torch.zeros(0)  # for training cases only, so not part of the state
        self.readings: dict[str, dict[str, float]] = {}
        self.joint: dict[str, float] = {}

    def fit(self, lesson: Lesson, scaler: Scaler) -> None:
        """Probe every teacher and weigh the probes, on the training part alone."""
        train, y = lesson.train, lesson.y[lesson.train]
        rng = np.random.default_rng(lesson.seed)
        found: dict[int, Reading] = {}
        xs: dict[int, np.ndarray] = {}
        for t, read in enumerate(self.reads):
            x = np.concatenate([scaler.means(lesson.store, t, level) for level in read], axis=1)
            has = lesson.store.teachers[t].sizes[train] > 0
            reading = fit_probe(x[train], has, lesson.strata, y, lesson.task, rng)
            if reading is not None:
                found[t], xs[t] = reading, x[train]
        held = np.zeros((len(lesson.store.cases), self.shape.outputs)) + lesson.task.null
        null = lesson.task.null.copy()
        if found:
            apart, together = PARTS[self.kind]
            predictions = np.stack([reading.out_of_fold for reading in found.values()])
            weights = stack(lesson.task, predictions, y)
            held[train] += apart * np.einsum("t,tnc->nc", weights, predictions)
            z = {
                t: np.nan_to_num(standardised(xs[t], reading.probe.mean, reading.probe.deviation))
                for t, reading in found.items()
            }
            joint, maps = components(list(z.values()))
            one = fit_probe(joint, np.ones(len(train), bool), lesson.strata, y, lesson.task, rng)
            assert one is not None  # as many cases as any teacher, which had enough
            scale = together * best_scale(lesson.task, one.out_of_fold, y)
            slope = one.probe.weights / one.probe.deviation[:, None]
            held[train] += scale * one.out_of_fold
            null -= scale * (one.probe.mean @ slope)
            self.joint = {
                "components": float(joint.shape[1]),
                "evidence": one.evidence,
                "penalty": one.penalty,
            }
            for (t, reading), weight, part in zip(found.items(), weights, maps, strict=True):
                self._set(f"mean_{t}", reading.probe.mean)
                self._set(f"inverse_{t}", 1 / reading.probe.deviation)
                own = apart * weight * reading.probe.weights
                self._set(f"weights_{t}", own + scale * (part @ slope))
                self.readings[self.shape.teachers[t]] = {
                    "weight": float(weight),
                    "spread": float(weight * reading.out_of_fold.std()),
                    "evidence": reading.evidence,
                    "penalty": reading.penalty,
                }
        self._set("null", null)
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
        return {"kind": self.kind, "teachers": self.readings, "joint": self.joint}

    def _set(self, name: str, values: np.ndarray) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
