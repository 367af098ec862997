"""What probes say of one endpoint: each teacher's, that of all teachers and that of prototypes.

Everything is linear in standardised numbers of a case, the teachers' means and the shares of
prototypes, so that it adds up to one weight for each, and one endpoint may lean on what is said of
another.
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
    posterior,
    stack,
    working_response,
)

Kind = Literal["all", "both", "stacked", "joint"]
MEANS: dict[str, tuple[float, float]] = {
    "all": (0.5, 0.5),  # where there are no prototypes
    "both": (0.5, 0.5),
    "stacked": (1, 0),
    "joint": (0, 1),
}
SHARES = -1  # the shares of prototypes, among the teachers' numbers
PARTS = ("apart", "together", "prototypes")


@dataclasses.dataclass(frozen=True)
class Ground:
    """A departure from the constant prediction: constant + sum over sources of z @ slope.

    Attributes:
        constant: float64 (C,).
        slopes: for each source, a teacher or SHARES, float64 (d, C).
        held: float64 (n, C), of the training cases, by probes that had not seen them.
        readings: for each teacher what is known of its probe.
        joint: what is known of the probes of all teachers together.
        parts: how far each of PARTS spreads the cases apart, as weighted here.
    """

    constant: np.ndarray
    slopes: Mapping[int, np.ndarray]
    held: np.ndarray
    readings: Mapping[int, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    joint: Mapping[str, float] = dataclasses.field(default_factory=dict)
    parts: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def mapped(self, matrix: np.ndarray) -> Ground:
        """Its outputs times (C, K)."""
        slopes = {t: slope @ matrix for t, slope in self.slopes.items()}
        return Ground(self.constant @ matrix, slopes, self.held @ matrix)


@dataclasses.dataclass(frozen=True)
class View:
    """A few numbers of a case that all teachers have a part in.

    Attributes:
        leading: float64 (n, k).
        maps: for each teacher float64 (d, k), from its standardised numbers to its part.
        trust: float64 (k,), as `probe.ridge_path` takes it.
    """

    leading: np.ndarray
    maps: Mapping[int, np.ndarray]
    trust: np.ndarray


@dataclasses.dataclass(frozen=True)
class Lectern:
    """What probes of all endpoints read.

    Attributes:
        z: for each teacher that enough training cases have, float64 (n, d), standardised; 0 where a
            case has no such teacher.
        has: for each of them bool (n,).
        views: of all teachers together; one at least.
        strata: int64 (n,), spread evenly over inner folds.
        shares: float64 (n, K), standardised shares of prototypes, 0 where a case has none; None
            where too few cases have any.
        counted: bool (n,), which cases have shares.
    """

    z: Mapping[int, np.ndarray]
    has: Mapping[int, np.ndarray]
    views: Sequence[View]
    strata: np.ndarray
    shares: np.ndarray | None
    counted: np.ndarray


def enough(z: Mapping[int, np.ndarray], has: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """The numbers of those sources that enough cases have to cross-validate a probe."""
    return {s: part for s, part in z.items() if has[s].sum() >= 2 * INNER_FOLDS}


def lectern(
    z: Mapping[int, np.ndarray],
    has: Mapping[int, np.ndarray],
    strata: np.ndarray,
    views: Sequence[View] = (),
) -> Lectern | None:
    """Ready for probing, or None where too few cases have any teacher.

    Args:
        z, has: for each teacher, and for SHARES, its numbers and which cases have them.
        strata: of the cases.
        views: of the teachers that are `enough`; without any, the leading components of their
            numbers are the view.
    """
    own = enough(z, has)
    shares = own.pop(SHARES, None)
    if not own:
        return None
    if not views:
        leading, maps = components(list(own.values()))
        views = [View(leading, dict(zip(own, maps, strict=True)), np.ones(leading.shape[1]))]
    counted = has.get(SHARES, np.zeros(len(strata), dtype=bool))
    return Lectern(own, {t: has[t] for t in own}, views, strata, shares, counted)


def fit_ground(
    desk: Lectern, y: np.ndarray, task: Objective, kind: Kind, rng: np.random.Generator
) -> Ground | None:
    """Probe every teacher and all together for one endpoint.

    Args:
        desk: what is read.
        y: float32 (n, columns), NaN for a case without a label.
        task: the endpoint.
        kind: the probes apart (`stacked`), together (`joint`), the mean of the two (`both`), or
            these two and that of prototypes, weighted by what they say of unseen cases (`all`).
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
    if not found:
        return None
    parts = [_apart(desk, found, y, task, known), _together(desk, y, task, known, rng)]
    weights = np.array(MEANS[kind])
    if kind == "all" and desk.shares is not None:
        reading = fit_probe(desk.shares, desk.counted & known, desk.strata, y, task, rng)
        if reading is not None:
            slope, constant = _linear(reading.probe)
            held = _unseen(reading, desk.shares, desk.counted & ~known)
            parts.append(Ground(constant, {SHARES: slope}, held))
            weights = stack(task, np.stack([part.held for part in parts])[:, known], y[known])
    whole = _weighted(parts, weights)
    spreads = [float(w * part.held.std()) for w, part in zip(weights, parts, strict=True)]
    return dataclasses.replace(
        whole,
        readings=parts[0].readings,
        joint=parts[1].joint,
        parts=dict(zip(PARTS, spreads, strict=False)),
    )


def _apart(
    desk: Lectern, found: Mapping[int, Reading], y: np.ndarray, task: Objective, known: np.ndarray
) -> Ground:
    """Each teacher's probe, weighted."""
    said = np.stack([_unseen(r, desk.z[t], desk.has[t] & ~known) for t, r in found.items()])
    weights = stack(task, said[:, known], y[known])
    slopes, readings = {}, {}
    constant = np.zeros(len(task.null))
    for (t, reading), weight in zip(found.items(), weights, strict=True):
        slope, start = _linear(reading.probe)
        slopes[t] = weight * slope
        constant = constant + weight * start
        readings[t] = {
            "weight": float(weight),
            "spread": float(weight * reading.out_of_fold.std()),
            "evidence": reading.evidence,
            "penalty": reading.penalty,
        }
    return Ground(constant, slopes, np.einsum("t,tnc->nc", weights, said), readings)


def _together(
    desk: Lectern, y: np.ndarray, task: Objective, known: np.ndarray, rng: np.random.Generator
) -> Ground:
    """A probe of each view of all teachers, weighted by their likelihood."""
    readings = []
    for view in desk.views:
        reading = fit_probe(view.leading, known, desk.strata, y, task, rng, view.trust)
        assert reading is not None  # some teacher had enough of the known cases
        readings.append(reading)
    likely = posterior(np.array([reading.evidence for reading in readings]))
    pairs = list(zip(likely, desk.views, readings, strict=True))
    said = sum(w * _unseen(reading, view.leading, ~known) for w, view, reading in pairs)
    scale = best_scale(task, np.asarray(said)[known], y[known])
    slopes = {t: np.zeros((z.shape[1], len(task.null))) for t, z in desk.z.items()}
    constant = np.zeros(len(task.null))
    for w, view, reading in pairs:
        slope, start = _linear(reading.probe)
        constant = constant + scale * w * start
        for t, part in view.maps.items():
            slopes[t] += scale * w * part @ slope
    joint = {
        "components": float(sum(w * view.leading.shape[1] for w, view, _ in pairs)),
        "evidence": float(sum(w * reading.evidence for w, _, reading in pairs)),
        "penalty": float(np.exp(sum(w * np.log(reading.penalty) for w, _, reading in pairs))),
    }
    return Ground(constant, slopes, scale * np.asarray(said), joint=joint)


def _weighted(grounds: Sequence[Ground], weights: Sequence[float] | np.ndarray) -> Ground:
    """The weighted sum of what several say."""
    pairs = list(zip(weights, grounds, strict=True))
    sources = {s for ground in grounds for s in ground.slopes}
    return Ground(
        constant=sum(w * g.constant for w, g in pairs),
        slopes={s: sum(w * g.slopes[s] for w, g in pairs if s in g.slopes) for s in sources},
        held=sum(w * g.held for w, g in pairs),
    )


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
    whole = dataclasses.replace(
        _weighted(options, weights), readings=own.readings, joint=own.joint, parts=own.parts
    )
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
