"""What probes say of one endpoint: each teacher's and that of all teachers, put together.

Everything is linear in the teachers' standardised case means, so that it adds up to one weight for
each feature, and one endpoint may lean on what is said of another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from pipeline.aggregators.network import Objective
from pipeline.distillation.probe import (
    INNER_FOLDS,
    Probe,
    Reading,
    best_scale,
    components,
    fit_probe,
    stack,
    working_response,
)

Kind = Literal["both", "stacked", "joint"]
PARTS: dict[str, tuple[float, float]] = {"both": (0.5, 0.5), "stacked": (1, 0), "joint": (0, 1)}


@dataclasses.dataclass(frozen=True)
class Ground:
    """A departure from the constant prediction: constant + sum over teachers of z @ slope.

    Attributes:
        constant: float64 (C,).
        slopes: for each teacher float64 (d, C).
        held: float64 (n, C), of the training cases, by probes that had not seen them.
        readings: for each teacher what is known of its probe.
        joint: what is known of the probe of all teachers.
    """

    constant: np.ndarray
    slopes: Mapping[int, np.ndarray]
    held: np.ndarray
    readings: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    joint: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def mapped(self, matrix: np.ndarray) -> Ground:
        """Its outputs times (C, K)."""
        slopes = {t: slope @ matrix for t, slope in self.slopes.items()}
        return Ground(self.constant @ matrix, slopes, self.held @ matrix)


@dataclasses.dataclass(frozen=True)
class Lectern:
    """What probes of all endpoints read.

    Attributes:
        z: for each teacher that enough training cases have, float64 (n, d), standardised; 0 where a
            case has no such teacher.
        has: for each of them bool (n,).
        leading: float64 (n, k), all teachers' components.
        maps: for each teacher float64 (d, k).
        strata: int64 (n,), spread evenly over inner folds.
    """

    z: Mapping[int, np.ndarray]
    has: Mapping[int, np.ndarray]
    leading: np.ndarray
    maps: Mapping[int, np.ndarray]
    strata: np.ndarray


def lectern(
    z: Mapping[int, np.ndarray], has: Mapping[int, np.ndarray], strata: np.ndarray
) -> Lectern | None:
    """Ready for probing, or None where too few cases have any teacher."""
    kept = {t: part for t, part in z.items() if has[t].sum() >= 2 * INNER_FOLDS}
    if not kept:
        return None
    leading, maps = components(list(kept.values()))
    parts = dict(zip(kept, maps, strict=True))
    return Lectern(kept, {t: has[t] for t in kept}, leading, parts, strata)


def fit_ground(
    desk: Lectern, y: np.ndarray, task: Objective, kind: Kind, rng: np.random.Generator
) -> Ground | None:
    """Probe every teacher and all together for one endpoint.

    Args:
        desk: what is read.
        y: float32 (n, columns), NaN for a case without a label.
        task: the endpoint.
        kind: the probes apart (`stacked`), together (`joint`), or the mean of the two.
        rng: decides the inner folds.

    Returns:
        None where too few cases have the label.
    """
    known = ~np.isnan(y).any(axis=1)
    found: dict[int, Reading] = {}
    for t, z in desk.z.items():
        reading = fit_probe(z, desk.has[t] & known, desk.strata, y, task, rng)
        if reading is not None:
            found[t] = reading
    one = fit_probe(desk.leading, known, desk.strata, y, task, rng) if found else None
    if one is None:
        return None
    apart, together = PARTS[kind]
    said = np.stack([_unseen(r, desk.z[t], desk.has[t] & ~known) for t, r in found.items()])
    weights = stack(task, said[:, known], y[known])
    jointly = _unseen(one, desk.leading, ~known)
    scale = together * best_scale(task, jointly[known], y[known])
    slope, constant = _linear(one.probe)
    constant = scale * constant
    slopes = {t: scale * part @ slope for t, part in desk.maps.items()}
    readings = {}
    for (t, reading), weight in zip(found.items(), weights, strict=True):
        own, start = _linear(reading.probe)
        slopes[t] = slopes[t] + apart * weight * own
        constant = constant + apart * weight * start
        readings[t] = {
            "weight": float(weight),
            "spread": float(weight * reading.out_of_fold.std()),
            "evidence": reading.evidence,
            "penalty": reading.penalty,
        }
    held = apart * np.einsum("t,tnc->nc", weights, said) + scale * jointly
    joint = {
        "components": float(desk.leading.shape[1]),
        "evidence": one.evidence,
        "penalty": one.penalty,
    }
    return Ground(constant, slopes, held, readings, joint)


def lean(
    own: Ground,
    others: Sequence[tuple[Ground, Objective, np.ndarray]],
    y: np.ndarray,
    task: Objective,
    strata: np.ndarray,
    rng: np.random.Generator,
) -> tuple[Ground, list[float]]:
    """Let an endpoint lean on what probes say of others.

    How another endpoint bears on this one is learned from the labels of both, which is easier than
    to learn it from features; what the probes say of the other is then taken for its label.

    Args:
        own: of the endpoint.
        others: of each other endpoint what is said, the endpoint, and its targets (n, columns), NaN
            for a case without a label.
        y: float32 (n, columns), the endpoint's targets.
        task: the endpoint.
        strata, rng: for the inner folds.

    Returns:
        the sum, weighted (>= 0) by how well out-of-fold predictions agree with the labels, and the
        weight of each other endpoint.
    """
    options = [own]
    for ground, other, aims in others:
        options.append(own.mapped(np.zeros((len(task.null),) * 2)))
        known = ~np.isnan(aims).any(axis=1)
        label = np.zeros((len(y), len(other.null)))
        try:
            label[known] = working_response(other, aims[known])
        except ValueError:  # a Cox endpoint without an event says nothing
            continue
        bearing = fit_probe(label, known, strata, y, task, rng)
        if bearing is not None:
            options[-1] = ground.mapped(_linear(bearing.probe)[0])
    weights = stack(task, np.stack([option.held for option in options]), y)
    slopes = {
        t: sum(w * o.slopes[t] for w, o in zip(weights, options, strict=True)) for t in own.slopes
    }
    constant = sum(w * o.constant for w, o in zip(weights, options, strict=True))
    held = sum(w * o.held for w, o in zip(weights, options, strict=True))
    whole = Ground(constant, slopes, held, own.readings, own.joint)
    return whole, [float(weight) for weight in weights[1:]]


def _unseen(reading: Reading, x: np.ndarray, strange: np.ndarray) -> np.ndarray:
    """Out-of-fold predictions; of rows that no probe has learned from, the probe's."""
    out = reading.out_of_fold.copy()
    out[strange] = reading.probe(x[strange])
    return out


def _linear(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """A probe as slope (d, C) and constant (C,); what it clips is clipped before."""
    slope = probe.weights / probe.deviation[:, None]
    return slope, -(probe.mean @ slope)
