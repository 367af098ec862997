"""What the training part's average reaches, as a floor for errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from sksurv.metrics import integrated_brier_score
from sksurv.util import Surv

from pipeline.config.evaluation import EvaluationConfig
from pipeline.contracts.folds import read_folds
from pipeline.evaluation.load_inputs import known_labels, open_bench
from pipeline.evaluation.reference import reference_metrics

Make = Callable[..., Any]


def built(house: Any) -> tuple[dict[str, float], Any]:
    folds = read_folds(house.root, "task")
    labels = known_labels(house.cases, "task", house.task, folds)
    bench, _ = open_bench(EvaluationConfig(bootstraps=50), house.task, labels, folds, [])
    return reference_metrics(bench, labels), bench


def test_values_and_shares_are_those_of_each_folds_training_part(results: Make) -> None:
    house = results("regression")
    found, bench = built(house)
    score = house.cases.set_index("case_id")["score"]
    errors = [
        (score[list(fold.test)] - score[list(fold.train)].mean()).abs() for fold in bench.folds
    ]
    assert set(found) == {"mae", "rmse"}
    assert found["mae"] == pytest.approx(np.concatenate(errors).mean())


def test_class_shares(results: Make) -> None:
    house = results("classification")
    found, bench = built(house)
    label = house.cases.set_index("case_id")["subtype"]
    losses = []
    for fold in bench.folds:
        shares = label[list(fold.train)].value_counts(normalize=True)
        losses += [-np.log(shares[label[case]]) for case in fold.test]
    assert found["log_loss"] == pytest.approx(np.mean(losses))
    assert set(found) == {"brier", "log_loss"}


def test_survival_curves_are_kaplan_meiers_of_the_training_part(results: Make) -> None:
    house = results("survival")
    found, bench = built(house)
    table = house.cases.set_index("case_id")
    place = {case: i for i, case in enumerate(bench.labels.cases)}
    grid = np.array(bench.points.grid)
    curves = np.zeros((len(place), len(grid)))
    for fold in bench.folds:
        train = table.loc[list(fold.train)]
        fitted = KaplanMeierFitter().fit(train["time"], train["event"])
        curves[[place[case] for case in fold.test]] = fitted.predict(grid).to_numpy()
    y = Surv.from_arrays(bench.labels.event, bench.labels.time)
    expected = integrated_brier_score(y, y, curves, grid)
    assert set(found) == {"integrated_brier"}
    assert found["integrated_brier"] == pytest.approx(expected, abs=1e-3)


def test_the_page_can_read_it(results: Make) -> None:
    house = results("survival")
    house.add("student", 0.2)
    house.add("other", 0.9)
    summary = house.evaluate()
    own = house.metric("student", "integrated_brier")["value"]
    assert own < summary["reference_metrics"]["integrated_brier"]
