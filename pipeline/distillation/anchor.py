"""The student's ground to stand on: linear probes of its teachers, apart, together and as kinds.

Apart, each teacher has a probe, and the probes are weighted by how well they predict training cases
that they have not seen: a weak teacher gets little or nothing, and the sum is never far from the
best of the teachers. Together, probes read a few numbers that all teachers have a part in: the
canonical variates of their tiles, which tell cases apart more than the choice of tiles does
(`canonical.py`), or, where teachers have one feature a case, the leading components of all
features, each brought to unit variance. A ridge on the features themselves hardly moves along a
component of small variance, whatever it says of the label. As kinds, one probe reads how much of a
case is of which prototype (`prototypes.py`). Which of the three says most depends on the task, and
is learned from what they say of training cases that they have not seen. Endpoints learned with
the task lend what is said of them.
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
from pipeline.distillation.canonical import canonical_views
from pipeline.distillation.ground import (
    PROTOTYPE_SHARES,
    Ground,
    Kind,
    fit_ground,
    lean,
    lectern,
    often,
)
from pipeline.distillation.probe import CLIP, center, standardised
from pipeline.distillation.prototypes import KINDS, Prototypes
from pipeline.distillation.tiles import TileComponents, tile_groups


class Anchor(nn.Module):
    """A constant plus the weighted probes; linear in mean features and shares of prototypes.

    Args:
        shape: teachers, widths, outputs.
        levels: which levels each probe reads, side by side.
        kind: as `ground.fit_ground` says.
    """

    def __init__(self, shape: Shape, levels: tuple[str, ...], kind: Kind = "all") -> None:
        super().__init__()
        self.shape = shape
        self.kind = kind
        self.reads = [[level for level in levels if level in dims] for dims in shape.dims]
        self.register_buffer("null", torch.zeros(shape.outputs))
        widths = {
            t: sum(shape.dims[t][level] for level in read) for t, read in enumerate(self.reads)
        }
        self.prototypes = Prototypes(shape.dims, levels) if kind == "all" else None
        if self.prototypes is not None:
            widths[PROTOTYPE_SHARES] = KINDS
        for source, width in widths.items():
            self.register_buffer(f"mean_{source}", torch.zeros(width))
            self.register_buffer(f"inverse_{source}", torch.zeros(width))
            self.register_buffer(f"weights_{source}", torch.zeros(width, shape.outputs))
        self.held = torch.zeros(0)  # for training cases only, so not part of the state
        self.readings: dict[str, dict[str, float]] = {}
        self.joint: dict[str, float] = {}
        self.parts: dict[str, float] = {}
        self.auxiliary: dict[str, float] = {}

    def fit(self, lesson: Lesson, scaler: Scaler) -> None:
        """Probe every teacher and weigh the probes, on the training part alone."""
        train, y = lesson.train, lesson.y[lesson.train].astype(np.float32)
        rng = np.random.default_rng(lesson.seed)
        self.readings, self.joint, self.parts, self.auxiliary = {}, {}, {}, {}
        z: dict[int, np.ndarray] = {}
        has: dict[int, np.ndarray] = {}
        deviations: dict[int, np.ndarray] = {}
        groups = self._tiles(lesson, scaler)
        for source, (x, known) in self._read(lesson, scaler).items():
            has[source] = known
            if not known.any():
                continue
            mean, deviation = center(x[known])
            deviations[source] = deviation
            z[source] = np.nan_to_num(standardised(x, mean, deviation)) * known[:, None]
            self._set(f"mean_{source}", mean)
            self._set(f"inverse_{source}", 1 / deviation)
            self._set(f"weights_{source}", np.zeros((x.shape[1], self.shape.outputs)))
        held = np.zeros((len(lesson.store.cases), self.shape.outputs)) + lesson.task.null
        null = lesson.task.null.copy()
        desk = lectern(z, has, lesson.strata, canonical_views(z, has, deviations, groups))
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
            self.auxiliary = dict(zip(others, weights, strict=True))
        for name, ground in grounds.items():
            outputs = endpoints[name].outputs
            held[train, outputs] += ground.held
            null[outputs] += ground.constant
            for source, slope in ground.slopes.items():
                self.get_buffer(f"weights_{source}")[:, outputs] = torch.from_numpy(slope).float()
        if "" in grounds:
            self.joint, self.parts = dict(grounds[""].joint), dict(grounds[""].parts)
            self.readings = {
                self.shape.teachers[t]: dict(facts) for t, facts in grounds[""].readings.items()
            }
        self._set("null", null)
        self.held = torch.from_numpy(held.astype(np.float32))

    def _read(self, lesson: Lesson, scaler: Scaler) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """For each source the training cases' numbers float64 (n, d), and which cases have any.

        Shares are of the prototypes as `_tiles` left them.
        """
        store, train = lesson.store, lesson.train
        found = {}
        for t, read in enumerate(self.reads):
            x = np.concatenate([scaler.means(store, t, level) for level in read], axis=1)
            found[t] = x[train], store.teachers[t].sizes[train] > 0
        if self.prototypes is not None:
            found[PROTOTYPE_SHARES] = self.prototypes.shares(store, train, scaler)
        return found

    def _tiles(self, lesson: Lesson, scaler: Scaler) -> list[TileComponents]:
        """Components of the training tiles, from which the prototypes are learned too."""
        if self.prototypes is None:
            return []
        present = lesson.store.present[lesson.train]
        reads = [(t, lv) for t in often(dict(enumerate(present.T))) for lv in self.reads[t]]
        groups = tile_groups(lesson.store, lesson.train, scaler, reads, lesson.seed)
        self.prototypes.fit(groups[0] if groups else None, lesson.seed)
        return groups

    def forward(self, scaled: tuple[dict[str, Tensor], ...], batch: Batch) -> Tensor:
        """(B, C) for any case, in float32 also where the network around it is not."""
        with torch.autocast(batch.cases.device.type, enabled=False):
            out = self.get_buffer("null").expand(len(batch), -1)
            for t, read in enumerate(self.reads):
                means = [
                    masked_mean(scaled[t][lv], batch.masks[t], batch.emphasised(t, lv))
                    for lv in read
                ]
                out = out + self._say(t, torch.cat(means, dim=1), batch.present[:, t])
            if self.prototypes is not None and self.prototypes.used.any():
                shares = self.prototypes(scaled, batch)
                out = out + self._say(PROTOTYPE_SHARES, shares, self.prototypes.has(batch.present))
        return out

    def _say(self, source: int, x: Tensor, has: Tensor) -> Tensor:
        """What a source's numbers (B, d) add: (B, C); nothing for a case that has none."""
        z = (x - self.get_buffer(f"mean_{source}")) * self.get_buffer(f"inverse_{source}")
        return z.clamp(-CLIP, CLIP) @ self.get_buffer(f"weights_{source}") * has[:, None]

    def unseen(self, batch: Batch) -> Tensor:
        """(B, C) for training cases: what probes that had not seen them say."""
        self.held = self.held.to(batch.cases.device)
        return self.held[batch.cases]

    def facts(self) -> dict[str, Any]:
        auxiliary = {"auxiliary": self.auxiliary} if self.auxiliary else {}
        return {
            "kind": self.kind,
            "teachers": self.readings,
            "joint": self.joint,
            "parts": self.parts,
            **auxiliary,
        }

    def _set(self, name: str, values: np.ndarray) -> None:
        self.get_buffer(name).copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
