"""How much of its teachers' score an encoder keeps that the workflow made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.bootstrap import interval
from pipeline.evaluation.metrics import PRIMARY, Bench, Measured
from pipeline.evaluation.predictions import Predictions

CHANCE = {"c_index": 0.5, "auc": 0.5, "r2": 0.0}
OF_ONE = ("single", "linear")


def teacher_of(model: Predictions) -> str:
    """The one teacher of a simple model; empty of any other."""
    meta = model.meta
    one = meta is not None and meta.model["kind"] in OF_ONE and len(meta.teachers) == 1
    return meta.teachers[0] if one and meta is not None else ""


def retained_table(
    predictions: Sequence[Predictions],
    measured: Sequence[Measured],
    made: Sequence[str],
    bench: Bench,
    confidence: float,
) -> pd.DataFrame | None:
    """One row for each simple model of a made encoder, beside the best one of its teachers.

    The same cases are resampled for both. The best teacher is chosen on the same cases as it is
    then measured on, which favours it.

    Columns: model, encoder, best (the teachers' best model of the same learner), value, low, high,
    best_value, share, share_low, share_high (of the best one's value), above_chance and its low and
    high (the same of what both are better than chance; NaN where the best one is not),
    difference and its low and high.

    Args:
        predictions: of all models.
        measured: their measures.
        made: names of encoders that the workflow made.
        bench: cases and resamples.
        confidence: coverage of the intervals.

    Returns:
        None where no model reads a made encoder.
    """
    primary = PRIMARY[bench.task.type]
    values = {one.name: one.values[primary] for one in measured if primary in one.values}
    teachers = {m.name: teacher_of(m) for m in predictions if m.name in values and teacher_of(m)}
    learners = {m.name: _learner(m) for m in predictions if m.name in teachers}
    rows = []
    for name, encoder in teachers.items():
        rivals = [n for n in teachers if learners[n] == learners[name] and teachers[n] not in made]
        rivals = [n for n in rivals if np.isfinite(values[n][0])]
        if encoder not in made or not rivals:
            continue
        best = max(rivals, key=lambda n: values[n][0])
        own, other, chance = values[name], values[best], CHANCE[primary]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = own / np.where(other > 0, other, np.nan)
            above = (own - chance) / np.where(other > chance, other - chance, np.nan)
        rows.append(
            {
                "model": name,
                "encoder": encoder,
                "best": best,
                **_estimate("value", own, confidence, ""),
                "best_value": float(other[0]),
                **_estimate("share", share, confidence),
                **_estimate("above_chance", above, confidence),
                **_estimate("difference", own - other, confidence),
            }
        )
    return pd.DataFrame(rows) if rows else None


def _learner(model: Predictions) -> Mapping[str, Any]:
    """A model's config without its teacher."""
    assert model.meta is not None  # of models with one teacher
    return {key: value for key, value in model.meta.model.items() if key != "teacher"}


def _estimate(
    name: str, values: np.ndarray, confidence: float, prefix: str | None = None
) -> dict[str, float]:
    between = interval(values[1:], confidence)
    stem = f"{name}_" if prefix is None else prefix
    return {name: float(values[0]), f"{stem}low": between.low, f"{stem}high": between.high}
