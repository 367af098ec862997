"""The student's ground to stand on: linear probes of its teachers, apart and together.

Apart, each teacher has a probe, and the probes are weighted by how well they predict training cases
that they have not seen: a weak teacher gets little or nothing, and the sum is never far from the
best of the teachers. Together, one probe reads the leading components of all teachers' features,
each brought to unit variance: a ridge on the features themselves hardly moves along a component of
small variance, whatever it says of the label. Few cases cannot tell which of the two is better, so
that the student stands on their mean. Endpoints learned beside the task lend what is said of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.base import masked_mean
from pipeline.aggregators.network import Endpoint, Lesson, Shape
from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.distillation.ground import Ground, Kind, fit_ground, lean, lectern
from pipeline.distillation.probe import CLIP, center, standardised


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
        self.beside: dict[str, float] = {}

    def fit(self, lesson: Lesson, scaler: Scaler) -> None:
        """Probe every teacher and weigh the probes, on the training part alone."""
        train, y = lesson.train, lesson.y[lesson.train].astype(np.float32)
        rng = np.random.default_rng(lesson.seed)
        self.readings, self.joint, self.beside = {}, {}, {}
        z: dict[int, np.ndarray] = {}
        has: dict[int, np.ndarray] = {}
        for t, read in enumerate(self.reads):
            x = np.concatenate([scaler.means(lesson.store, t, lv) for lv in read], axis=1)[train]
            has[t] = lesson.store.teachers[t].sizes[train] > 0
            if not has[t].any():
                continue
            mean, deviation = center(x[has[t]])
            z[t] = np.nan_to_num(standardised(x, mean, deviation))
            self._set(f"mean_{t}", mean)
            self._set(f"inverse_{t}", 1 / deviation)
            self._set(f"weights_{t}", np.zeros((x.shape[1], self.shape.outputs)))
        held = np.zeros((len(lesson.store.cases), self.shape.outputs)) + lesson.task.null
        null = lesson.task.null.copy()
        desk = lectern(z, has, lesson.strata)
        whole = Endpoint("", lesson.task, slice(None), slice(None))
        grounds: dict[str, Ground] = {}
        endpoints = {e.name: e for e in lesson.task.endpoints or (whole,)}
        for name, endpoint in endpoints.items() if desk is not None else ():
            assert desk is not None
            aims = y[:, endpoint.columns]
            ground = fit_ground(desk, aims, endpoint.task, self.kind, rng)
            if ground is not None:
                grounds[name] = ground
        others = [name for name in grounds if name]
        if others and "" in grounds:
            own = endpoints[""]
            told = [(grounds[n], endpoints[n].task, y[:, endpoints[n].columns]) for n in others]
            grounds[""], weights = lean(
                grounds[""], told, y[:, own.columns], own.task, lesson.strata, rng
            )
            self.beside = dict(zip(others, weights, strict=True))
        for name, ground in grounds.items():
            outputs = endpoints[name].outputs
            held[train, outputs] += ground.held
            null[outputs] += ground.constant
            for t, slope in ground.slopes.items():
                self.get_buffer(f"weights_{t}")[:, outputs] = torch.from_numpy(slope).float()
        if "" in grounds:
            self.joint = dict(grounds[""].joint)
            self.readings = {
                self.shape.teachers[t]: dict(facts) for t, facts in grounds[""].readings.items()
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
        beside = {"beside": self.beside} if self.beside else {}
        return {"kind": self.kind, "teachers": self.readings, "joint": self.joint, **beside}

    def _set(self, name: str, values: np.ndarray) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
