"""Calibration, the interval between models, and the distance to the training cohort."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from pipeline.contracts.labels import Labels
from pipeline.prediction import calibration, familiarity
from pipeline.prediction.ensemble import between


def cases(n: int) -> tuple[str, ...]:
    return tuple(f"c{i:04d}" for i in range(n))


def test_survival_is_calibrated_whatever_the_scale_of_the_score() -> None:
    """Exponential times of a known hazard, a score that is twice too steep."""
    rng = np.random.default_rng(0)
    n = 4000
    log_hazard = 0.7 * rng.normal(size=n)
    time = rng.exponential(10 / np.exp(log_hazard))
    labels = Labels(cases(n), {}, time=np.minimum(time, 30), event=time < 30)
    found = calibration.fit_survival(2 * log_hazard, labels, [2.0, 10.0, 99.0], {}, 0.25)
    assert found.method == "cox" and found.horizons == [2.0, 10.0]
    assert found.numbers["slope"] == pytest.approx(0.5, abs=0.03)
    said = calibration.survival(found, np.array([2.0, 0.0, -2.0]))
    true = np.exp(-np.array([2.0, 10.0]) / 10 * np.exp([[1.0], [0.0], [-1.0]]))
    np.testing.assert_allclose(said, true, atol=0.03)


def test_a_risk_that_orders_nothing_is_not_turned_round() -> None:
    rng = np.random.default_rng(0)
    score = rng.normal(size=300)
    time = rng.exponential(np.exp(score))
    labels = Labels(cases(300), {}, time=time, event=np.ones(300, bool))
    found = calibration.fit_survival(score, labels, [1.0], {}, 0.25)
    assert found.numbers["slope"] == 0 and "did not die sooner" in found.note
    said = calibration.survival(found, np.array([-3.0, 3.0]))
    assert said[0] == said[1]


def test_few_events_are_said_and_not_fitted() -> None:
    labels = Labels(cases(20), {}, time=np.arange(1.0, 21), event=np.arange(20) < 3)
    found = calibration.fit_survival(np.arange(20.0), labels, [5.0], {}, 0.25)
    assert found.method == "none" and found.horizons == [] and "3 events" in found.note


def test_one_temperature_mends_probabilities_that_are_too_sure() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(3000, 3))
    label = np.array([rng.choice(3, p=p) for p in softmax(logits, axis=1)])
    sure = softmax(3 * logits, axis=1)
    labels = Labels(cases(3000), {}, classes=("a", "b", "c"), label=label)
    found = calibration.fit_classes(sure, labels, 0.25)
    assert found.numbers["temperature"] == pytest.approx(3, rel=0.1)
    assert found.before is not None and found.after is not None and found.after < found.before
    np.testing.assert_allclose(
        calibration.classes(found, sure[:50]), softmax(logits[:50], axis=1), atol=0.05
    )


def test_a_line_mends_numbers_and_a_constant_target_stays() -> None:
    rng = np.random.default_rng(2)
    true = np.stack([rng.normal(size=200), np.full(200, 4.0)], axis=1)
    values = np.stack([true[:, 0] * 0.5 + 1, np.full(200, 3.0)], axis=1)
    values[7] = np.nan
    labels = Labels(cases(200), {}, targets=true)
    found = calibration.fit_values(values, labels, 0.25)
    assert found.cases == 199
    np.testing.assert_allclose(calibration.numbers(found, values[:5]), true[:5], atol=1e-9)


def test_the_interval_between_models_is_nadeau_and_bengios() -> None:
    values = np.array([1.0, 2.0, 4.0])
    mean, low, high = between(values, 0.5)
    error = np.sqrt(values.var(ddof=1) * (1 / 3 + 0.5))
    assert mean == pytest.approx(7 / 3) and low is not None and high is not None
    assert high - mean == pytest.approx(error * stats.t.ppf(0.975, 2))
    assert mean - low == pytest.approx(high - mean)
    assert between(values[:1], 0.5) == (1.0, None, None)


@pytest.mark.parametrize(("n", "d"), [(30, 200), (200, 100), (300, 2)])
def test_new_slides_of_the_cohort_are_familiar_and_others_are_not(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    mix = rng.normal(size=(d, min(5, d)))

    def draw(count: int) -> np.ndarray:
        return rng.normal(size=(count, mix.shape[1])) @ mix.T + 0.3 * rng.normal(size=(count, d))

    x = draw(n)
    most = familiarity.limit(x, cases(n))
    assert most is not None
    cloud = familiarity.describe(x)
    again = familiarity.Cloud.of(cloud.tensors())
    assert (again.distance(draw(500)) > most).mean() < 0.05
    away = draw(500) + 20 * np.linalg.norm(mix, axis=1) * rng.choice([-1, 1], d)
    assert (again.distance(away) > most).mean() > 0.9


def test_too_few_slides_or_cases_set_no_limit() -> None:
    x = np.random.default_rng(0).normal(size=(12, 3))
    assert familiarity.limit(x[:9], cases(9)) is None
    assert familiarity.limit(x, ["a", "b"] * 6) is None
    assert not familiarity.compare("stain", familiarity.describe(x), None, x[0] + 100).outside


def test_the_scale_may_be_a_little_beyond_the_training_slides() -> None:
    for mpp, outside in ((0.25, False), (0.55, False), (0.22, False), (0.2, True), (0.6, True)):
        assert familiarity.compare_mpp(mpp, (0.25, 0.5)).outside == outside
