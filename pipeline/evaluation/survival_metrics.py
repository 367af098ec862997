"""Survival metrics for many weightings of the cases at once.

Harrell's C, Uno's C, cumulative/dynamic AUC and the integrated Brier score, with the conventions of
scikit-survival (ties of risk count a half, events that share a time are not comparable), to which
the tests hold them. The censoring distribution is estimated again in every resample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from pipeline.evaluation.bootstrap import ratio

# Raised when measures of survival tasks change. 1: the first.
VERSION = 1

TIED = 1e-8
_BLOCK = 512


@dataclasses.dataclass(frozen=True)
class TimePoints:
    """At which times a task is measured, in its unit; fixed for all models, folds and resamples.

    Attributes:
        tau: Uno's C counts events before this time.
        horizons: ascending; times of the cumulative/dynamic AUC.
        grid: ascending; times of the predicted survival curves.
    """

    tau: float
    horizons: tuple[float, ...]
    grid: tuple[float, ...]


def time_points(
    time: np.ndarray, event: np.ndarray, horizons: tuple[float, ...], last_edge: float | None
) -> TimePoints:
    """Choose them: the given horizons, or quartiles of the event times.

    `tau` is the time that nine of ten cases have not outlasted: later, few are under observation
    and their censoring weights grow without bound. The grid ends there, or at the last time that
    the predicted curves speak of.

    Args:
        time, event: of all cases, (n,).
        horizons: evaluation.horizons; empty to choose.
        last_edge: the last bin edge of discrete-time models, None for others.
    """
    tau = float(np.quantile(time, 0.9))
    events = time[event & (time <= tau)]
    events = events if len(events) else time[event]
    quartiles = [float(f"{t:.4g}") for t in np.quantile(events, [0.25, 0.5, 0.75])]
    chosen = sorted(set(horizons) or set(quartiles))
    end = tau if last_edge is None else min(tau, last_edge)
    grid = np.linspace(min(float(events.min()), end / 2), end, 25)
    return TimePoints(tau, tuple(float(h) for h in chosen), tuple(grid.tolist()))


class SurvivalScorer:
    """Everything about cases and resamples that does not depend on a model.

    Args:
        time: float64 (n,).
        event: bool (n,).
        weights: (b, n), non-negative.
        points: the time points.
    """

    def __init__(
        self, time: np.ndarray, event: np.ndarray, weights: np.ndarray, points: TimePoints
    ) -> None:
        self.time, self.event, self.weights, self.points = time, event, weights, points
        self.rows = np.flatnonzero(event)
        self.comparable = np.concatenate(
            [weights @ later.T for _, later in self._blocks()] or [weights[:, :0]], axis=1
        )
        at_events = time[self.rows]
        censoring = kaplan_meier(time, ~event, weights, at_events, after=event)
        inverse = np.where(censoring > 0, 1 / np.where(censoring > 0, censoring, 1), np.inf)
        self.event_weights = weights[:, self.rows]
        # Only events that a resample holds count; an undefined weight of an absent one must not.
        self.inverse = np.where(self.event_weights > 0, inverse, 0.0)
        survival = kaplan_meier(time, event, weights, np.array(points.horizons))
        self.lost = -np.diff(survival, axis=1, prepend=1.0)
        at_grid = kaplan_meier(time, ~event, weights, np.array(points.grid), after=event)
        self.inverse_at_grid = ratio(np.ones_like(at_grid), at_grid)

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of event rows with their comparable cases, float64 (rows, n)."""
        for start in range(0, len(self.rows), _BLOCK):
            rows = self.rows[start : start + _BLOCK]
            later = self.time[None, :] > self.time[rows, None]
            tied = (self.time[None, :] == self.time[rows, None]) & ~self.event[None, :]
            yield rows, (later | tied).astype(np.float64)

    def __call__(self, values: np.ndarray, curves: np.ndarray | None) -> dict[str, np.ndarray]:
        """All metrics of one model.

        Args:
            values: (n, 1), the risk; higher is worse.
            curves: (n, len(grid)), predicted survival at the grid; None where there is none.

        Returns:
            name -> float64 (b,), NaN where undefined.
        """
        risk = values[:, 0]
        before = [self.time[self.rows] <= h for h in self.points.horizons]
        after = [(self.time > h).astype(np.float64) for h in self.points.horizons]
        concordant: list[np.ndarray] = []
        dynamic: list[list[np.ndarray]] = [[] for _ in after]
        for rows, later in self._blocks():
            gap = risk[rows, None] - risk[None, :]
            won = np.where(np.abs(gap) <= TIED, 0.5, gap > 0) * later
            concordant.append(self.weights @ won.T)
            for parts, control in zip(dynamic, after, strict=True):
                parts.append(self.weights @ (won * control).T)
        empty = self.weights[:, :0]
        wins = np.concatenate(concordant or [empty], axis=1)
        found = {"c_index": self._concordance(wins, self.event_weights)}
        early = self.time[self.rows] < self.points.tau
        found["c_index_ipcw"] = self._concordance(
            wins, self.event_weights * np.where(early, self.inverse, 0) ** 2
        )
        aucs = []
        for parts, case, control in zip(dynamic, before, after, strict=True):
            weight = self.event_weights * np.where(case, self.inverse, 0)
            controls = self.weights @ control
            won_at = (weight * np.concatenate(parts or [empty], axis=1)).sum(axis=1)
            aucs.append(ratio(_finite(won_at), _finite(weight.sum(axis=1)) * controls))
        found["auc_mean"] = self._mean_auc(aucs)
        for horizon, auc in zip(self.points.horizons, aucs, strict=True):
            found[f"auc_at_{horizon:.4g}"] = auc
        if curves is not None:
            found["integrated_brier"] = self.integrated_brier(curves)
        return found

    def _concordance(self, wins: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return ratio(
            _finite((weight * wins).sum(axis=1)), _finite((weight * self.comparable).sum(axis=1))
        )

    def _mean_auc(self, aucs: list[np.ndarray]) -> np.ndarray:
        """Mean over the horizons, weighted by the survival lost up to each (Lambert 2014)."""
        if len(aucs) == 1:
            return aucs[0]
        return ratio((np.stack(aucs, axis=1) * self.lost).sum(axis=1), self.lost.sum(axis=1))

    def integrated_brier(self, curves: np.ndarray) -> np.ndarray:
        """IPCW Brier score (Graf 1999), trapezoid mean over the grid; float64 (b,)."""
        grid = np.array(self.points.grid)
        dead = (self.time[self.rows, None] <= grid[None, :]) * curves[self.rows] ** 2
        alive = (self.time[:, None] > grid[None, :]) * (1 - curves) ** 2
        used = np.where(np.isfinite(self.inverse), self.inverse, 0.0)
        scores = (self.event_weights * used) @ dead
        scores += (self.weights @ alive) * np.nan_to_num(self.inverse_at_grid)
        scores /= self.weights.sum(axis=1, keepdims=True)
        return np.trapezoid(scores, grid, axis=1) / (grid[-1] - grid[0])


def kaplan_meier(
    time: np.ndarray,
    event: np.ndarray,
    weights: np.ndarray,
    at: np.ndarray,
    after: np.ndarray | None = None,
) -> np.ndarray:
    """Kaplan–Meier estimates under many weightings.

    Args:
        time: (n,).
        event: bool (n,), what the curve steps down at.
        weights: (b, n).
        at: (m,), times to read the curves at.
        after: bool (n,), cases that leave the risk set before events of the same time: with
            censoring as the event, the deaths.

    Returns:
        float64 (b, m): the share that outlasts each time.
    """
    order = np.argsort(time, kind="stable")
    times, starts = np.unique(time[order], return_index=True)
    sorted_weights = weights[:, order]
    total = np.add.reduceat(sorted_weights, starts, axis=1)
    events = np.add.reduceat(sorted_weights * event[order], starts, axis=1)
    at_risk = np.cumsum(total[:, ::-1], axis=1)[:, ::-1]
    if after is not None:
        at_risk = at_risk - np.add.reduceat(sorted_weights * after[order], starts, axis=1)
    steps = 1 - np.where(events > 0, events / np.where(at_risk > 0, at_risk, 1), 0)
    curve = np.concatenate([np.ones((len(weights), 1)), np.cumprod(steps, axis=1)], axis=1)
    read: np.ndarray = curve[:, np.searchsorted(times, at, side="right")]
    return read


def _finite(values: np.ndarray) -> np.ndarray:
    """NaN where an infinite censoring weight took part."""
    return np.where(np.isfinite(values), values, np.nan)
