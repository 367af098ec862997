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
    stacking_weights,
    working_response,
)

Kind = Literal["all", "both", "stacked", "joint"]
MEANS: dict[str, tuple[float, float]] = {
    "all": (0.5, 0.5),  # where there are no prototypes
    "both": (0.5, 0.5),
    "stacked": (1, 0),
    "joint": (0, 1),
}
PROTOTYPE_SHARES = -1  # the shares of prototypes, among the teachers' numbers
PARTS = ("apart", "together", "prototypes")
# Log-likelihood that the teachers' own probes must add to canonical variates and prototypes to be
# believed as much as left out. Where the truth was known they mostly cost something next to these.
RESERVE = 4.0


@dataclasses.dataclass(frozen=True)
class Ground:
    """A departure from the constant prediction: constant + sum over sources of z @ slope.

    Attributes:
        constant: float64 (C,).
        slopes: for each source, a teacher or PROTOTYPE_SHARES, float64 (d, C).
        held: float64 (n, C), of the training cases, by probes that had not seen them.
        readings: for each teacher what is known of its probe.
        joint: what is known of the probes of all teachers together, or of one.
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
    """Some numbers of a case, in which one teacher or several have a part.

    Attributes:
        leading: float64 (n, k).
        maps: for each teacher float64 (d, k), from its standardised numbers to its part; None: they
            are its numbers.
        trust: float64 (k,), as `probe.ridge_path` takes it.
    """

    leading: np.ndarray
    maps: Mapping[int, np.ndarray | None]
    trust: np.ndarray | float = 1.0


@dataclasses.dataclass(frozen=True)
class Lectern:
    """What probes of all endpoints read.

    Attributes:
        has: for each teacher that enough training cases have, bool (n,), which these are.
        apart: for each of them its numbers.
        together: views of all of them; one at least.
        variates: of which teachers these are canonical variates; none: leading components of all.
        strata: int64 (n,), spread evenly over inner folds.
        shares: of prototypes, standardised; None where too few cases have any.
        counted: bool (n,), which cases have shares.
    """

    has: Mapping[int, np.ndarray]
    apart: Mapping[int, View]
    together: Sequence[View]
    variates: frozenset[int]
    strata: np.ndarray
    shares: View | None
    counted: np.ndarray


def often(has: Mapping[int, np.ndarray]) -> list[int]:
    """Those sources that enough cases have, bool (n,), to cross-validate a probe."""
    return [source for source, cases in has.items() if cases.sum() >= 2 * INNER_FOLDS]


def lectern(
    z: Mapping[int, np.ndarray],
    has: Mapping[int, np.ndarray],
    strata: np.ndarray,
    canonical: Sequence[View] = (),
) -> Lectern | None:
    """Ready for probing, or None where too few cases have any teacher.

    Args:
        z, has: for each teacher, and for PROTOTYPE_SHARES, its numbers, float64 (n, d),
            standardised, 0 where a case has none; and which cases have them.
        strata: of the cases.
        canonical: views of teachers; without any, the leading components of the numbers of all of
            them are read together.
    """
    own = {source: z[source] for source in often(has)}
    shares = own.pop(PROTOTYPE_SHARES, None)
    if not own:
        return None
    together = canonical
    if not canonical:
        leading, maps = components(list(own.values()))
        together = [View(leading, dict(zip(own, maps, strict=True)))]
    return Lectern(
        has={t: has[t] for t in own},
        apart={t: View(part, {t: None}) for t, part in own.items()},
        together=together,
        variates=frozenset(t for view in canonical for t in view.maps),
        strata=strata,
        shares=None if shares is None else View(shares, {PROTOTYPE_SHARES: None}),
        counted=has.get(PROTOTYPE_SHARES, np.zeros(len(strata), dtype=bool)),
    )


def fit_ground(
    desk: Lectern, y: np.ndarray, task: Objective, kind: Kind, rng: np.random.Generator
) -> Ground | None:
    """Probe every teacher and all together for one endpoint.

    Args:
        desk: what is read.
        y: float32 (n, columns), NaN for a case without a label.
        task: the endpoint.
        kind: the probes apart (`stacked`), together (`joint`), the mean of the two (`both`), or
            these two and that of prototypes, weighted by what they say of unseen cases (`all`);
            those apart of teachers that have canonical variates with RESERVE.
        rng: decides the inner folds.

    Returns:
        None where too few cases have the label.
    """
    known = ~np.isnan(y).any(axis=1)
    strata = desk.strata
    alone: dict[int, Ground] = {}
    for t, view in desk.apart.items():
        found = _probed([view], desk.has[t], known, strata, y, task, rng)
        if found is not None:
            alone[t] = found
    everyone = np.ones(len(y), dtype=bool)
    joint = _probed(desk.together, everyone, known, strata, y, task, rng) if alone else None
    if joint is None:
        return None
    scale = best_scale(task, joint.held[known], y[known])
    apart, together = _apart(alone, y, task, known), _weighted([joint], [scale])
    parts, weights = [apart, together], np.array(MEANS[kind])
    if kind == "all" and desk.shares is not None:
        shares = _probed([desk.shares], desk.counted, known, strata, y, task, rng)
        if shares is not None:
            options = [apart]
            if desk.variates:
                others = {t: found for t, found in alone.items() if t not in desk.variates}
                null = apart.mapped(np.zeros((len(task.null),) * 2))
                options.append(_apart(others, y, task, known) if others else null)
            believed = _believed(
                task, [[option.held, together.held, shares.held] for option in options], known, y
            )
            parts = [_weighted(options, believed[:, 0]), together, shares]
            weights = np.append(1.0, believed[:, 1:].sum(axis=0))
    whole = _weighted(parts, weights)
    spreads = [float(w * part.held.std()) for w, part in zip(weights, parts, strict=True)]
    return dataclasses.replace(
        whole,
        readings=apart.readings,
        joint=joint.joint,
        parts=dict(zip(PARTS, spreads, strict=False)),
    )


def _believed(
    task: Objective, options: Sequence[Sequence[np.ndarray]], known: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Weigh PARTS (n, C) each by what they say of cases unseen.

    Of two options the first is believed with RESERVE. Returns (options, PARTS); options add up.
    """
    held = np.array(options)[:, :, known]
    weights = np.array([stacking_weights(task, parts, y[known]) for parts in held])
    said = task.null + np.einsum("op,opnc->onc", weights, held)
    likely = np.array([task.evidence(each, y[known]) for each in said])
    likely[0] -= RESERVE
    return posterior(likely)[:, None] * weights


def _probed(
    views: Sequence[View],
    has: np.ndarray,
    known: np.ndarray,
    strata: np.ndarray,
    y: np.ndarray,
    task: Objective,
    rng: np.random.Generator,
) -> Ground | None:
    """A probe of each view, weighted by their likelihood; `joint` says what is known of them.

    None where too few cases that have what is viewed have the label.
    """
    readings = []
    for view in views:
        reading = fit_probe(view.leading, has & known, strata, y, task, rng, view.trust)
        if reading is None:
            return None
        readings.append(reading)
    likely = posterior(np.array([reading.evidence for reading in readings]))
    grounds = []
    for view, reading in zip(views, readings, strict=True):
        slope, constant = _linear(reading.probe)
        slopes = {s: slope if part is None else part @ slope for s, part in view.maps.items()}
        grounds.append(Ground(constant, slopes, _unseen(reading, view.leading, has & ~known)))
    joint = {
        "components": float(likely @ [view.leading.shape[1] for view in views]),
        "evidence": float(likely @ [reading.evidence for reading in readings]),
        "penalty": float(np.exp(likely @ np.log([reading.penalty for reading in readings]))),
    }
    return dataclasses.replace(_weighted(grounds, likely), joint=joint)


def _apart(
    alone: Mapping[int, Ground], y: np.ndarray, task: Objective, known: np.ndarray
) -> Ground:
    """Each teacher's probes, weighted."""
    held = np.stack([ground.held for ground in alone.values()])
    weights = stacking_weights(task, held[:, known], y[known])
    readings = {
        t: {
            "weight": float(weight),
            "spread": float(weight * ground.held[known].std()),
            "evidence": ground.joint["evidence"],
            "penalty": ground.joint["penalty"],
        }
        for (t, ground), weight in zip(alone.items(), weights, strict=True)
    }
    return dataclasses.replace(_weighted(list(alone.values()), weights), readings=readings)


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
    weights = stacking_weights(task, np.stack([option.held for option in options]), y)
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
