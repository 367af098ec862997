"""Our vectorised metrics against scikit-survival, scikit-learn and SciPy, resample by resample."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from sksurv.metrics import (
    concordance_index_censored,
    concordance_index_ipcw,
    cumulative_dynamic_auc,
    integrated_brier_score,
)
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from pipeline.evaluation.bootstrap import (
    interval,
    p_value,
    resample_folds,
    resample_weights,
    widened,
)
from pipeline.evaluation.classification_metrics import ClassificationScorer
from pipeline.evaluation.regression_metrics import RegressionScorer
from pipeline.evaluation.survival_metrics import (
    SurvivalScorer,
    TimePoints,
    kaplan_meier,
    time_points,
)


def _library(compute: Callable[[], float]) -> float:
    """A library's value, NaN where it says that there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(compute())
        except (ValueError, ZeroDivisionError):
            return float("nan")


def _expand(weights: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(weights)), weights.astype(int))


def survival_cohort(seed: int, n: int = 60, ties: bool = True) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    time = rng.exponential(np.exp(-0.7 * risk) * 20) + 0.1
    censored = rng.exponential(30, n) + 0.1
    event = time <= censored
    time = np.minimum(time, censored)
    if ties:
        time, risk = np.ceil(time), risk.round(1)
    curves = np.exp(-np.outer(np.exp(0.5 * risk), np.linspace(0.05, 1, 25)))
    return time, event, risk, curves


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans())
def test_survival_metrics_equal_scikit_survival_on_every_resample(seed: int, ties: bool) -> None:
    time, event, risk, curves = survival_cohort(seed, ties=ties)
    points = time_points(time, event, (), None)
    weights = resample_weights(len(time), 3, seed)
    found = SurvivalScorer(time, event, weights, points)(risk[:, None], curves)
    assert found["c_index"].shape == (4,)
    for b, row in enumerate(weights):
        i = _expand(row)
        t, e, r = time[i], event[i], risk[i]
        y = Surv.from_arrays(e, t)
        horizons = list(points.horizons)
        grid = np.array(points.grid)
        if grid[-1] >= t.max() or grid[0] < t.min() or horizons[0] < t.min():
            continue
        expected = {
            "c_index": _library(lambda t=t, e=e, r=r: concordance_index_censored(e, t, r)[0]),
            "c_index_ipcw": _library(
                lambda y=y, r=r: concordance_index_ipcw(y, y, r, tau=points.tau)[0]
            ),
            "integrated_brier": _library(
                lambda y=y, c=curves[i], g=grid: integrated_brier_score(y, y, c, g)
            ),
        }
        for name, value in expected.items():
            assert found[name][b] == pytest.approx(value, abs=1e-9, nan_ok=True), name
        last = np.flatnonzero(e & (t == t[e].max()))
        if (t[last] < t.max()).all():  # the library wants a censoring weight of every event
            aucs, mean = cumulative_dynamic_auc(y, y, r, horizons)
            ours = [found[f"auc_at_{h:.4g}"][b] for h in horizons]
            assert ours == pytest.approx(list(aucs), abs=1e-9)
            assert found["auc_mean"][b] == pytest.approx(mean, abs=1e-9)


def test_kaplan_meier_equals_scikit_survival() -> None:
    time, event, _, _ = survival_cohort(4)
    weights = resample_weights(len(time), 5, 0)
    at = np.unique(time)
    for reverse in (False, True):
        ours = kaplan_meier(
            time, ~event if reverse else event, weights, at, after=event if reverse else None
        )
        for b, row in enumerate(weights):
            i = _expand(row)
            times, curve = kaplan_meier_estimator(event[i], time[i], reverse=reverse)
            assert ours[b][np.isin(at, times)] == pytest.approx(curve)


def test_survival_metrics_that_are_undefined_are_nan_and_the_rest_stands() -> None:
    time = np.array([1.0, 2, 3, 4, 5, 6])
    event = np.array([True, False, True, False, False, False])
    points = TimePoints(5.0, (3.5,), (1.0, 2.0, 3.0))
    weights = np.array([[1, 1, 1, 1, 1, 1], [0, 3, 0, 1, 1, 1], [2, 0, 0, 0, 0, 4]], float)
    found = SurvivalScorer(time, event, weights, points)(np.arange(6.0)[:, None] * -1, None)
    assert found["c_index"].tolist()[::2] == [1.0, 1.0]
    assert np.isnan(found["c_index"][1]) and np.isnan(found["auc_at_3.5"][1])
    assert "integrated_brier" not in found
    constant = SurvivalScorer(time, event, weights, points)(np.zeros((6, 1)), None)
    assert constant["c_index"][0] == constant["auc_mean"][0] == 0.5


def test_without_any_event_nothing_is_defined() -> None:
    time = np.arange(1.0, 7)
    scorer = SurvivalScorer(
        time, np.zeros(6, bool), np.ones((2, 6)), TimePoints(5.0, (3.0,), (1.0, 2.0))
    )
    found = scorer(np.arange(6.0)[:, None], None)
    assert all(np.isnan(v).all() for v in found.values())


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), classes=st.integers(2, 4), ties=st.booleans())
def test_classification_metrics_equal_scikit_learn_on_every_resample(
    seed: int, classes: int, ties: bool
) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=50)
    label[:classes] = np.arange(classes)
    logits = rng.normal(size=(50, classes)) + np.eye(classes)[label]
    values = np.exp(logits)
    values /= values.sum(axis=1, keepdims=True)
    if ties:
        values = rng.multinomial(8, values) / 8
    weights = resample_weights(50, 3, seed)
    found = ClassificationScorer(label, classes, weights, ordered=True)(values, None)
    assert ("qwk" in found) == (classes > 2)
    for b, row in enumerate(weights):
        i = _expand(row)
        y, p, hard = label[i], values[i], values[i].argmax(axis=1)
        one_hot = np.eye(classes)[y]
        multi = {"multi_class": "ovr", "average": "macro"} if classes > 2 else {}
        score = p if classes > 2 else p[:, 1]
        expected = {
            "auc": _library(lambda y=y, s=score, m=multi: sk.roc_auc_score(y, s, **m)),
            "auprc": _library(lambda h=one_hot, p=p: sk.average_precision_score(h, p)),
            "accuracy": sk.accuracy_score(y, hard),
            "balanced_accuracy": _library(lambda y=y, h=hard: sk.balanced_accuracy_score(y, h)),
            "f1": sk.f1_score(y, hard, average="macro"),
            "kappa": _library(lambda y=y, h=hard: sk.cohen_kappa_score(y, h)),
            "log_loss": sk.log_loss(y, p, labels=range(classes)),
        }
        if classes > 2:
            expected["qwk"] = _library(
                lambda y=y, h=hard: sk.cohen_kappa_score(y, h, weights="quadratic")
            )
            expected["brier"] = float(np.mean(((p - one_hot) ** 2).sum(axis=1)))
        else:
            expected["brier"] = sk.brier_score_loss(y, p[:, 1], pos_label=1)
        if len(np.unique(y)) < classes:
            expected |= {"auc": float("nan"), "auprc": float("nan")}
        for name, value in expected.items():
            assert found[name][b] == pytest.approx(value, abs=1e-9, nan_ok=True), name


def test_calibration_error_of_known_cases() -> None:
    values = np.array([[0.75, 0.25]] * 4 + [[0.05, 0.95]] * 2)
    label = np.array([0, 0, 0, 1, 1, 1])
    found = ClassificationScorer(label, 2, np.ones((1, 6)), ordered=False)(values, None)
    assert found["ece"][0] == pytest.approx((4 * 0 + 2 * 0.05) / 6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), ties=st.booleans(), shift=st.sampled_from([0.0, 1e6]))
def test_regression_metrics_equal_the_libraries_on_every_resample(
    seed: int, ties: bool, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(40, 2)) + shift
    values = true + rng.normal(size=(40, 2))
    if ties:
        true, values = true.round(), values.round()
    weights = resample_weights(40, 3, seed)
    found = RegressionScorer(true, ["a", "b"], weights)(values, None)
    for b, row in enumerate(weights):
        i = _expand(row)
        for t, name in enumerate(["a", "b"]):
            x, y = true[i, t], values[i, t]
            expected = {
                "r2": sk.r2_score(x, y),
                "pearson": stats.pearsonr(x, y).statistic,
                "spearman": stats.spearmanr(x, y).statistic,
                "mae": sk.mean_absolute_error(x, y),
                "rmse": sk.root_mean_squared_error(x, y),
            }
            for metric, value in expected.items():
                assert found[f"{metric}[{name}]"][b] == pytest.approx(value, abs=1e-6), metric
        both = [found[f"pearson[{name}]"][b] for name in "ab"]
        assert found["pearson"][b] == pytest.approx(np.mean(both))


def test_constant_predictions_have_no_correlation_but_an_r2() -> None:
    true = np.array([0.1, 0.2, 0.3, 0.7])[:, None]
    weights = np.array([[1.0, 1, 1, 1], [4, 0, 0, 0]])
    found = RegressionScorer(true, ["a"], weights)(np.full((4, 1), 1 / 3), None)
    assert np.isnan(found["pearson"]).all() and np.isnan(found["spearman"]).all()
    assert found["r2"][0] < 0 and np.isnan(found["r2"][1])
    assert np.isfinite(found["mae"]).all()


def test_resamples_are_seeded_and_whole() -> None:
    weights = resample_weights(30, 200, 5)
    assert (weights[0] == 1).all() and (weights.sum(axis=1) == 30).all()
    assert (weights == resample_weights(30, 200, 5)).all()
    assert (weights != resample_weights(30, 200, 6)).any()
    assert abs(weights[1:].mean(axis=0) - 1).max() < 0.35


def test_resampled_folds_stay_together_and_vary_more() -> None:
    folds = [np.arange(0, 10), np.arange(10, 20), np.arange(20, 30)]
    weights = resample_folds(folds, 30, 400, 5)
    assert (weights[0] == 1).all() and (weights.sum(axis=1) == 30).all()
    assert (weights == resample_folds(folds, 30, 400, 5)).all()
    of_folds = np.stack([weights[1:, rows].sum(axis=1) for rows in folds], axis=1)
    assert set(np.unique(of_folds)) == {0, 10, 20, 30}
    # A model that is wrong by the same in a whole fold: resampled cases hardly see it.
    off = np.repeat([0.3, 0.0, -0.3], 10)
    alone = resample_weights(30, 400, 5)
    assert (weights[1:] @ off).std() > 2 * (alone[1:] @ off).std()


def test_few_folds_are_drawn_wider() -> None:
    """As the unbiased variance of three values is 3/2 of their mean square deviation."""
    values = np.array([0.2, 0.0, 0.5])
    assert widened(values, 3) == pytest.approx(0.2 + np.sqrt(1.5) * (values - 0.2))


def test_undefined_resamples_are_counted() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.4, np.nan])
    found = interval(values, 0.5)
    assert found.n_undefined == 1
    assert (found.low, found.high) == pytest.approx((0.175, 0.325))
    mostly = interval(np.array([0.1, np.nan, np.nan, np.nan]), 0.95)
    assert mostly.n_undefined == 3 and np.isnan(mostly.low)


def test_p_values_are_two_sided_and_never_zero() -> None:
    assert p_value(np.full(99, 0.1)) == pytest.approx(2 / 100)
    assert p_value(np.full(99, -0.1)) == pytest.approx(2 / 100)
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.r_[np.full(50, 0.1), np.full(49, -0.1)]) == 1
    assert np.isnan(p_value(np.full(9, np.nan)))


def test_time_points_follow_the_events_or_the_config() -> None:
    time, event, _, _ = survival_cohort(0, 200, ties=False)
    points = time_points(time, event, (), None)
    assert points.tau == pytest.approx(np.quantile(time, 0.9))
    assert len(points.horizons) == 3 and points.horizons[-1] < points.tau
    assert points.grid[-1] == points.tau
    given_points = time_points(time, event, (20.0, 10.0), 15.0)
    assert given_points.horizons == (10.0, 20.0) and given_points.grid[-1] == 15.0
