"""From what an ensemble says to what it is worth, fitted to out-of-fold test predictions.

- survival: the score becomes survival at given times, by a Cox model of the score alone with
  Breslow's baseline (recalibration of slope and baseline; van Houwelingen, Stat Med 2000).
- classification: temperature scaling (Guo et al., ICML 2017).
- regression: a straight line for each target.

Each fold's model predicts cases that it has not seen, one model a case; a new case is predicted by
all of them, whose mean varies a little less. That is the price of not holding out a cohort.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from lifelines import CoxPHFitter
from lifelines.exceptions import ConvergenceError
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logit

from pipeline.contracts.labels import Labels
from pipeline.contracts.model_card import Calibration
from pipeline.evaluation.hazards import breslow

LEAST_EVENTS = 5
LEAST_CASES = 10
KNOTS = 64  # times of the baseline hazard
LEAST = 1e-6  # of a probability, before its logarithm is taken
TEMPERATURES = (0.05, 20.0)


def fit_survival(
    score: np.ndarray,
    labels: Labels,
    horizons: Sequence[float],
    cutoffs: Mapping[str, list[float]],
    test_share: float,
) -> Calibration:
    """Of risks.

    Args:
        score: (n,), out-of-fold scores; NaN where there is none.
        labels: of the same cases.
        horizons: times at which survival is stated.
        cutoffs: fold -> cut-offs of its training part.
        test_share: tested cases for each case trained on.
    """
    assert labels.time is not None and labels.event is not None
    there = np.isfinite(score)
    score, time, event = score[there], labels.time[there], labels.event[there]
    numbers: dict[str, float | list[float]] = {}
    slope, note = _slope(score, time, event)
    if slope is not None:
        last = time[event].max()
        times = np.unique(np.quantile(time[event], np.linspace(0, 1, KNOTS)))
        hazard = breslow(time, event, slope * score, times)
        numbers = {
            "slope": slope,
            "mean": float(score.mean()),
            "times": times.tolist(),
            "hazard": hazard.tolist(),
        }
        horizons = [float(at) for at in horizons if at <= last]
    return Calibration(
        method="none" if slope is None else "cox",
        note=note,
        cases=len(score),
        numbers=numbers,
        cutoffs=dict(cutoffs),
        horizons=[] if slope is None else list(horizons),
        test_share=test_share,
        before=None,
        after=None,
    )


def _slope(score: np.ndarray, time: np.ndarray, event: np.ndarray) -> tuple[float | None, str]:
    """The log hazard ratio of one unit of the score, and what to say of it."""
    if event.sum() < LEAST_EVENTS:
        return None, f"{int(event.sum())} events are too few to state survival over time"
    if np.ptp(score) == 0:
        return None, "the models give all cases the same risk, so that survival cannot be stated"
    table = pd.DataFrame({"time": time, "event": event, "score": score})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            slope = float(CoxPHFitter().fit(table, "time", "event").params_["score"])
    except (ConvergenceError, ValueError):
        return None, "the Cox model of the score does not converge; survival is not stated"
    if slope <= 0:
        return 0.0, (
            "out of fold, cases of higher risk did not die sooner: the stated survival is that of "
            "the training cohort as a whole, whatever the risk"
        )
    return slope, ""


def survival(calibration: Calibration, score: np.ndarray) -> np.ndarray:
    """Survival at the horizons: (n, horizons), for scores (n,)."""
    numbers = calibration.numbers
    hazard = np.interp(
        calibration.horizons,
        np.concatenate([[0.0], np.asarray(numbers["times"])]),
        np.concatenate([[0.0], np.asarray(numbers["hazard"])]),
    )
    away = float(np.asarray(numbers["slope"])) * (score - float(np.asarray(numbers["mean"])))
    found: np.ndarray = np.exp(-hazard[None, :] * np.exp(away)[:, None])
    return found


def fit_classes(probabilities: np.ndarray, labels: Labels, test_share: float) -> Calibration:
    """Of class probabilities.

    Args:
        probabilities: (n, C), out of fold; NaN where there is none.
        labels: of the same cases.
        test_share: tested cases for each case trained on.
    """
    assert labels.label is not None
    there = np.isfinite(probabilities).all(axis=1)
    logits, label = log_probabilities(probabilities[there]), labels.label[there]

    def loss(temperature: float) -> float:
        said = log_softmax(logits / temperature, axis=1)
        return float(-said[np.arange(len(label)), label].mean())

    note, temperature = "", 1.0
    if len(label) < LEAST_CASES:
        note = f"{len(label)} cases are too few to calibrate; probabilities are the models' own"
    else:
        bounds = (np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1]))
        best = minimize_scalar(lambda t: loss(float(np.exp(t))), bounds=bounds, method="bounded")
        temperature = float(np.exp(best.x))
    return Calibration(
        method="none" if note else "temperature",
        note=note,
        cases=len(label),
        numbers={} if note else {"temperature": temperature},
        cutoffs={},
        horizons=[],
        test_share=test_share,
        before=loss(1.0),
        after=None if note else loss(temperature),
    )


def classes(calibration: Calibration, probabilities: np.ndarray) -> np.ndarray:
    """Calibrated probabilities (n, C) of the models' own (n, C)."""
    temperature = float(np.asarray(calibration.numbers.get("temperature", 1.0)))
    found: np.ndarray = np.exp(log_softmax(log_probabilities(probabilities) / temperature, axis=1))
    return found


def log_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Their logarithm, which is finite: (n, C)."""
    found: np.ndarray = np.log(np.clip(probabilities, LEAST, 1.0))
    return found


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    """Log odds of each class against all others, finite: of the same shape."""
    found: np.ndarray = logit(np.clip(probabilities, LEAST, 1 - LEAST))
    return found


def fit_values(values: np.ndarray, labels: Labels, test_share: float) -> Calibration:
    """Of predicted numbers.

    Args:
        values: (n, T), out of fold; NaN where there is none.
        labels: of the same cases.
        test_share: tested cases for each case trained on.
    """
    assert labels.targets is not None
    there = np.isfinite(values).all(axis=1)
    values, true = values[there], labels.targets[there]
    slopes, intercepts = np.ones(values.shape[1]), np.zeros(values.shape[1])
    note = ""
    if len(values) < LEAST_CASES:
        note = f"{len(values)} cases are too few to calibrate; values are the models' own"
    else:
        for t in range(values.shape[1]):
            spread = values[:, t].var()
            if spread > 0:
                both = np.mean((values[:, t] - values[:, t].mean()) * true[:, t])
                slopes[t] = both / spread
            intercepts[t] = true[:, t].mean() - slopes[t] * values[:, t].mean()
    lines: dict[str, float | list[float]] = {
        "slope": slopes.tolist(),
        "intercept": intercepts.tolist(),
    }
    found = Calibration(
        method="none" if note else "line",
        note=note,
        cases=len(values),
        numbers={} if note else lines,
        cutoffs={},
        horizons=[],
        test_share=test_share,
        before=float(np.abs(values[:, 0] - true[:, 0]).mean()) if len(values) else None,
        after=None,
    )
    if note:
        return found
    off = float(np.abs(numbers(found, values)[:, 0] - true[:, 0]).mean())
    return dataclasses.replace(found, after=off)


def numbers(calibration: Calibration, values: np.ndarray) -> np.ndarray:
    """Calibrated numbers (n, T) of the models' own (n, T)."""
    if calibration.method == "none":
        return values
    slope = np.asarray(calibration.numbers["slope"])
    intercept = np.asarray(calibration.numbers["intercept"])
    found: np.ndarray = values * slope + intercept
    return found
