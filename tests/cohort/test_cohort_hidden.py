"""The hidden truth: stable per case, with the shares and the ceilings that it promises."""

from __future__ import annotations

import math
import random
import subprocess
import sys

import numpy as np
import pytest

from pipeline.cohort.synthetic.hidden_states import (
    STATES,
    SUBTYPES,
    TUMOUR_RANGE,
    HiddenCase,
    hidden_cases,
)
from pipeline.cohort.synthetic.oracle import concordance, oracle
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask

TASKS = {
    "os": SurvivalTask(type="survival", time="time", event="event"),
    "kind": ClassificationTask(type="classification", label="subtype"),
    "response": RegressionTask(type="regression", targets=["score"]),
    "other": RegressionTask(type="regression", targets=["age"]),
}


def states(cases: tuple[HiddenCase, ...]) -> np.ndarray:
    return np.array([[getattr(case, name) for name in STATES] for case in cases])


def test_more_cases_change_none() -> None:
    assert hidden_cases(60, 0.3, 7)[:20] == hidden_cases(20, 0.3, 7)


def test_seeds_are_different_cohorts() -> None:
    a, b = hidden_cases(20, 0.3, 1), hidden_cases(20, 0.3, 2)
    assert not any(x.time == y.time for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_states_fill_their_range_and_are_nearly_independent(seed: int) -> None:
    found = states(hidden_cases(100, 0.3, seed))
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.26
    level = (found - [TUMOUR_RANGE[0], 0, 0, 0]) / [TUMOUR_RANGE[1] - TUMOUR_RANGE[0], 1, 1, 1]
    assert level.min() >= 0 and level.max() < 1
    assert np.all(np.histogram(level[:, 0], 4, (0, 1))[0] >= 9)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6])
def test_censoring_reaches_its_share(share: float) -> None:
    cases = hidden_cases(1000, share, 3)
    assert np.mean([c.event == 0 for c in cases]) == pytest.approx(share, abs=0.05)


def test_times_are_months_with_one_digit_above_zero() -> None:
    times = [c.time for c in hidden_cases(1000, 0.3, 3)]
    assert min(times) >= 0.1
    assert all(round(t, 1) == t for t in times)


def test_classes_are_balanced_and_their_probabilities_calibrated() -> None:
    cases = hidden_cases(1000, 0.3, 5)
    assert all(math.isclose(sum(c.subtype_probabilities), 1) for c in cases)
    for k, name in enumerate(SUBTYPES):
        share = np.mean([c.subtype == name for c in cases])
        assert share == pytest.approx(1 / 3, abs=0.06)
        assert share == pytest.approx(
            np.mean([c.subtype_probabilities[k] for c in cases]), abs=0.03
        )


def test_the_oracle_leaves_room_above_and_below() -> None:
    many = oracle(hidden_cases(1000, 0.3, 11), TASKS)
    assert set(many) == {"os", "kind", "response"}
    assert 0.75 < many["os"]["c_index"] < 0.85
    assert 0.8 < many["kind"]["balanced_accuracy"] < 0.95 < many["kind"]["auc"] < 1
    assert 0.85 < many["response"]["pearson"] < 0.97
    assert 0.75 < oracle(hidden_cases(100, 0.3, 7), TASKS)["os"]["c_index"] < 0.85


def test_concordance_is_harrells() -> None:
    from sksurv.metrics import concordance_index_censored

    rng = random.Random(0)
    for _ in range(20):
        time = [float(rng.randint(1, 8)) for _ in range(30)]
        event = [rng.randint(0, 1) for _ in range(30)]
        risk = [float(rng.randint(0, 6)) for _ in range(30)]
        theirs = concordance_index_censored(np.array(event, bool), np.array(time), np.array(risk))
        assert concordance(time, event, risk) == pytest.approx(theirs[0])
    assert math.isnan(concordance([1, 2], [0, 0], [1, 2]))


def test_the_plan_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from pipeline.cohort import labels, sheet\n"
        "from pipeline.cohort.synthetic import embedded\n"
        "from pipeline.config.cohort import CohortConfig\n"
        "cfg = CohortConfig()\n"
        "sheet.identities(cfg, embedded.plan(cfg))\n"
        "heavy = {'numpy', 'pandas', 'cv2', 'torch', 'tifffile'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
