"""Kaplan–Meier curves of predicted risk groups, tested and compared; calibration over time.

Groups come from cut-offs that were fitted on training parts, so a group may be small or empty:
its curve is then flat, and what cannot be tested or fitted is left out with a note.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.exceptions import ConvergenceError
from lifelines.statistics import multivariate_logrank_test
from sksurv.nonparametric import kaplan_meier_estimator

GROUP_NAMES = {"median": ("low", "high"), "tertiles": ("low", "middle", "high")}
QUANTILES = {"median": (0.5,), "tertiles": (1 / 3, 2 / 3)}
_CALIBRATION_GROUPS = 5
_TICKS = 6


def ticks(longest: float) -> list[float]:
    """Round times from 0 to about the longest, for the axis and the table of cases at risk."""
    step = longest / (_TICKS - 1)
    magnitude = 10.0 ** math.floor(math.log10(step))
    nice = (
        next(m for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if m * magnitude >= step * 0.999)
        * magnitude
    )
    return [round(i * nice, 10) for i in range(_TICKS + 1) if i * nice <= longest * (1 + 1e-9)]


def kaplan_meier_panel(
    time: np.ndarray,
    event: np.ndarray,
    score: np.ndarray,
    group: np.ndarray,
    cutoff: str,
    at: list[float],
    confidence: float,
) -> dict[str, Any]:
    """One model's risk groups.

    Args:
        time: (n,), in the task's unit.
        event: bool (n,).
        score: (n,), risk on any one scale.
        group: int (n,), 0 for the lowest risk.
        cutoff: `median` or `tertiles`.
        at: times of the table of cases at risk.
        confidence: of the bands and intervals.

    Returns:
        `groups` (label, n, events, time, survival, low, high, censored, at_risk), `ticks`,
        `cutoff`, `logrank_p`, `logrank_statistic`, `hazard_ratio` (highest against lowest group:
        value, low, high, p_value), `hazard_ratio_per_sd` (per standard deviation of these cases'
        scores) and `notes`. What is undefined is None, with a note.
    """
    names = GROUP_NAMES[cutoff]
    groups = [
        _curve(time[group == g], event[group == g], name, at, confidence)
        for g, name in enumerate(names)
    ]
    notes = [f"no case is in the {g['label']} risk group" for g in groups if not g["n"]]
    statistic, p = _logrank(time, event, group)
    if p is None:
        notes.append("no log-rank test: fewer than two groups, or no event")
    top = len(names) - 1
    outer = (group == 0) | (group == top)
    ratio = _hazard_ratio(time[outer], event[outer], group[outer] == top, confidence, notes)
    # Scores come in deviations of the training part, whose predictions spread more than those of
    # cases that the model has not seen.
    spread = float(score.std()) if len(score) else 0.0
    per_sd = _hazard_ratio(time, event, score / (spread or 1.0), confidence, notes)
    return {
        "groups": groups,
        "ticks": at,
        "cutoff": cutoff,
        "logrank_p": p,
        "logrank_statistic": statistic,
        "hazard_ratio": ratio,
        "hazard_ratio_per_sd": per_sd,
        "notes": notes,
    }


def _curve(
    time: np.ndarray, event: np.ndarray, label: str, at: list[float], confidence: float
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": label,
        "n": len(time),
        "events": int(event.sum()),
        "censored": sorted(time[~event].tolist()),
        "at_risk": [int((time >= tick).sum()) for tick in at],
    }
    if not len(time):
        return found | {"time": [0.0], "survival": [1.0], "low": [1.0], "high": [1.0]}
    fitter = KaplanMeierFitter(alpha=1 - confidence).fit(time, event)
    survival = fitter.survival_function_.iloc[:, 0]
    band = fitter.confidence_interval_survival_function_
    # The band is not defined before the first event, where the curve is 1, nor where it is 0.
    low = band.iloc[:, 0].fillna(survival)
    high = band.iloc[:, 1].fillna(survival)
    step = np.flatnonzero(np.diff(survival.to_numpy(), prepend=2.0) != 0)
    kept = sorted({*step.tolist(), len(survival) - 1})
    return found | {
        "time": [float(t) for t in survival.index[kept]],
        "survival": survival.iloc[kept].tolist(),
        "low": low.iloc[kept].tolist(),
        "high": high.iloc[kept].tolist(),
    }


def _logrank(
    time: np.ndarray, event: np.ndarray, group: np.ndarray
) -> tuple[float | None, float | None]:
    if len(np.unique(group)) < 2 or not event.any():
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = multivariate_logrank_test(time, group, event)
    p = float(result.p_value)
    return (float(result.test_statistic), p) if math.isfinite(p) else (None, None)


def _hazard_ratio(
    time: np.ndarray, event: np.ndarray, covariate: np.ndarray, confidence: float, notes: list[str]
) -> dict[str, float] | None:
    """A Cox model's hazard ratio of one covariate; None with a note where there is none."""
    groups = covariate.dtype == bool
    what = "between the outer groups" if groups else "per standard deviation"
    if groups:
        sides = [event[covariate].any(), event[~covariate].any()]
        if not all(sides):
            notes.append(f"no hazard ratio {what}: a group has no event")
            return None
    elif not event.any() or np.ptp(covariate) == 0:
        notes.append(f"no hazard ratio {what}: no event, or the same risk for all")
        return None
    table = pd.DataFrame({"time": time, "event": event, "x": covariate.astype(float)})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitter = CoxPHFitter(alpha=1 - confidence).fit(table, "time", "event")
    except (ConvergenceError, ValueError):
        notes.append(f"no hazard ratio {what}: the Cox model does not converge")
        return None
    fitted = fitter.summary
    row = fitted.loc["x"]
    low, high = (c for c in fitted.columns if c.startswith("exp(coef) "))
    found = {
        "value": float(row["exp(coef)"]),
        "low": float(row[low]),
        "high": float(row[high]),
        "p_value": float(row["p"]),
    }
    if not all(math.isfinite(v) for v in found.values()):
        notes.append(f"no hazard ratio {what}: its interval is not finite")
        return None
    return found


def survival_calibration(
    time: np.ndarray, event: np.ndarray, predicted: np.ndarray, horizon: float, confidence: float
) -> dict[str, list[float]]:
    """Predicted survival at a time against the observed, in groups of like predictions.

    Args:
        time, event: (n,).
        predicted: (n,), the probability of outliving the horizon.
        horizon: in the task's unit.
        confidence: of the intervals.

    Returns:
        `predicted` (mean of a group), `observed` (Kaplan–Meier), `low`, `high`, `n`: a list each,
        from the lowest to the highest prediction.
    """
    order = np.argsort(predicted, kind="stable")
    found: dict[str, list[float]] = {k: [] for k in ("predicted", "observed", "low", "high", "n")}
    for rows in np.array_split(order, min(_CALIBRATION_GROUPS, max(1, len(order) // 10))):
        if not len(rows):
            continue
        observed, low, high = 1.0, 1.0, 1.0
        if event[rows].any():
            times, curve, band = kaplan_meier_estimator(
                event[rows], time[rows], conf_type="log-log", conf_level=confidence
            )
            last = int(np.searchsorted(times, horizon, side="right")) - 1
            if last >= 0:
                observed, low, high = float(curve[last]), float(band[0, last]), float(band[1, last])
        for key, value in (
            ("predicted", float(predicted[rows].mean())), ("observed", observed),
            ("low", low), ("high", high), ("n", len(rows)),
        ):  # fmt: skip
            found[key].append(value)
    return found
