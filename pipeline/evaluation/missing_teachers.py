"""What each model loses on cases that lack a teacher.

The tested cases that have all teachers, and those without one, are measured apart. The two are
different patients, so that a model which reads no missing teacher changes, too: it is what the
others are to be held against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.evaluation.bootstrap import interval
from pipeline.evaluation.metrics import PRIMARY, Bench, Measured, higher_is_better
from pipeline.evaluation.pooling import Pool, pooled

COMPLETE = "all teachers"
INCOMPLETE = "without one"


def missing_table(
    models: Sequence[tuple[Pool, Measured]],
    lacking: Mapping[str, Sequence[str]],
    bench: Bench,
    confidence: float,
) -> pd.DataFrame | None:
    """A row a model and group of cases, by the primary metric; None where no tested case lacks one.

    Args:
        models: every model.
        lacking: case -> teachers that it lacks, of the cases that lack some.
        bench: the evaluated cases.
        confidence: of the intervals.

    Returns:
        columns model, cases (`all teachers`, `without one`, and with several that some lack,
        `without <teacher>`), metric, value, low, high, n, n_events, lost (the value on cases with
        all teachers less this one; for errors the other way round), lost_low, lost_high (drawn over
        cases), higher_is_better.
    """
    cases = bench.labels.cases
    teachers = sorted({t for case in cases for t in lacking.get(case, ())})
    if not teachers:
        return None
    groups = {COMPLETE: np.array([not lacking.get(case) for case in cases])}
    groups[INCOMPLETE] = ~groups[COMPLETE]
    for teacher in teachers if len(teachers) > 1 else ():
        groups[f"without {teacher}"] = np.array([teacher in lacking.get(c, ()) for c in cases])
    metric = PRIMARY[bench.task.type]
    event = bench.labels.event
    nothing = np.full(len(bench.weights), np.nan)
    rows = []
    for pool, measured in models:
        whole = pooled(pool, cases)
        found = {}
        for group, members in groups.items():
            own = members & measured.there
            scores = bench.score(own, whole.values, whole.curves, "cases")
            found[group] = scores.get(metric, nothing)
            between = interval(found[group][1:], confidence)
            sign = 1.0 if higher_is_better(metric) else -1.0
            lost = sign * (found[COMPLETE] - found[group])
            ends = interval(lost[1:], confidence)
            row = {
                "model": measured.name,
                "cases": group,
                "metric": metric,
                "value": float(found[group][0]),
                "low": between.low,
                "high": between.high,
                "n": int(own.sum()),
                "n_events": None if event is None else int(event[own].sum()),
                "higher_is_better": higher_is_better(metric),
            }
            if group != COMPLETE:
                row |= {"lost": float(lost[0]), "lost_low": ends.low, "lost_high": ends.high}
            rows.append(row)
    return pd.DataFrame(rows).astype({"n_events": "Int64"})
