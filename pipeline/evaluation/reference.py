"""What a model that knows nothing of a case reaches: the average outcome of the training part.

Errors have no fixed value for chance, as a C-index or an AUC has. So each test case is given what
its fold's training cases have on average: their Kaplan-Meier curve, class shares or mean values.
"""

from __future__ import annotations

import numpy as np

from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.folds import Fold
from pipeline.contracts.labels import Labels
from pipeline.evaluation.metrics import LOWER_IS_BETTER, Bench
from pipeline.evaluation.survival_metrics import kaplan_meier

NO_FLOOR = frozenset({"ece"})  # who knows nothing but the shares is calibrated all the same


def reference_metrics(bench: Bench, labels: Labels) -> dict[str, float]:
    """Errors of the training part's average on the tested cases, by metric.

    Args:
        bench: the tested cases.
        labels: of all cases that the folds hold.
    """
    cases = bench.labels.cases
    row_of = {case: i for i, case in enumerate(labels.cases)}
    place = {case: i for i, case in enumerate(cases)}
    values, curves = None, None
    for fold in reversed(bench.folds):  # of overlapping folds the first that tests a case stays
        train = np.array([row_of[case] for case in fold.train])
        said, curve = _average(bench, labels, train)
        if values is None:
            values = np.zeros((len(cases), len(said)))
            curves = None if curve is None else np.zeros((len(cases), len(curve)))
        rows = _rows(fold, place)
        values[rows] = said
        if curves is not None:
            curves[rows] = curve
    assert values is not None
    found = bench.score(np.ones(len(cases), dtype=bool), values, curves)
    return {
        name: float(value[0])
        for name, value in found.items()
        if name in LOWER_IS_BETTER - NO_FLOOR and np.isfinite(value[0])
    }


def _rows(fold: Fold, place: dict[str, int]) -> list[int]:
    return [place[case] for case in fold.test]


def _average(
    bench: Bench, labels: Labels, train: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """What is said of every case: values (d,), and for survival the curve at the grid (t,)."""
    if isinstance(bench.task, SurvivalTask):
        assert labels.time is not None and labels.event is not None and bench.points is not None
        one = np.ones((1, len(train)))
        grid = np.array(bench.points.grid)
        return np.zeros(1), kaplan_meier(labels.time[train], labels.event[train], one, grid)[0]
    if labels.label is not None:
        return np.bincount(labels.label[train], minlength=len(labels.classes)) / len(train), None
    assert labels.targets is not None
    return labels.targets[train].mean(axis=0), None
