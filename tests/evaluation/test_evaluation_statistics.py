"""Tests, curves and survival estimates against definitions and libraries."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.statistics import logrank_test
from scipy import stats
from sklearn.metrics import roc_auc_score
from sksurv.linear_model.coxph import BreslowEstimator

from pipeline.evaluation.bootstrap import p_value, resample_weights
from pipeline.evaluation.classification_metrics import ranking
from pipeline.evaluation.comparisons import fold_test, holm, verdict
from pipeline.evaluation.curves import calibration, decision
from pipeline.evaluation.delong import delong_components, delong_test
from pipeline.evaluation.hazards import breslow, interpolate
from pipeline.evaluation.survival_curves import kaplan_meier_panel, survival_calibration, ticks


def _scores(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.4).astype(int)
    first = label + rng.normal(size=n)
    second = label + 1.3 * rng.normal(size=n) + 0.5 * first
    return label, first.round(1), second.round(1)


def _two(score: np.ndarray) -> np.ndarray:
    """Probabilities of two classes whose ranks are exactly reversed."""
    return np.stack([-score, score], axis=1)


def test_delong_variance_is_that_of_its_definition() -> None:
    label, score, _ = _scores(60)
    positive, negative = score[label == 1], score[label == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    expected = wins.mean(axis=1).var(ddof=1) / len(positive)
    expected += wins.mean(axis=0).var(ddof=1) / len(negative)
    auc, parts = delong_components(label, _two(score))
    assert auc == pytest.approx(roc_auc_score(label, score))
    assert (parts**2).sum() == pytest.approx(expected)


def test_delong_agrees_with_the_paired_bootstrap() -> None:
    label, first, second = _scores(300)
    p = delong_test(label, _two(first), _two(second))
    weights = resample_weights(300, 3000, 0)
    difference = ranking(label == 1, first, weights)[0] - ranking(label == 1, second, weights)[0]
    assert 0.001 < p < 0.999
    assert p_value(difference[1:]) == pytest.approx(p, abs=0.05)
    variance = (
        (delong_components(label, _two(first))[1] - delong_components(label, _two(second))[1]) ** 2
    ).sum()
    assert variance == pytest.approx(difference[1:].var(), rel=0.15)


def test_delong_holds_its_level_for_three_classes() -> None:
    p_values = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        label = np.arange(90) % 3
        shared = np.eye(3)[label] + rng.normal(size=(90, 3))
        values = [shared + rng.normal(size=(90, 3)) for _ in range(2)]
        p_values.append(delong_test(label, *values))
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.09


def test_delong_of_equal_or_too_few_predictions() -> None:
    label, score, _ = _scores(40)
    assert delong_test(label, _two(score), _two(score)) == 1
    assert np.isnan(delong_test(np.array([0, 0, 0, 1]), np.eye(4)[:, :2], np.eye(4)[:, :2]))


def test_holm_follows_the_textbook_and_passes_over_nan() -> None:
    adjusted = holm(np.array([0.01, np.nan, 0.04, 0.03, 0.005]))
    assert adjusted[[0, 2, 3, 4]] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert np.isnan(adjusted[1])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_the_fold_test_is_wider_than_a_paired_t_test() -> None:
    differences = np.array([0.02, 0.05, 0.01, 0.03, 0.04])
    mean, error, p = fold_test(differences, 0.25)
    plain = stats.ttest_1samp(differences, 0)
    statistic = plain.statistic * np.sqrt((1 / 5) / (1 / 5 + 0.25))
    assert mean == pytest.approx(0.03)
    assert p == pytest.approx(2 * stats.t.sf(statistic, 4)) and p > plain.pvalue
    assert error == pytest.approx(differences.std(ddof=1) * np.sqrt(0.45))
    assert fold_test(differences, 0.0)[2] == pytest.approx(plain.pvalue)
    assert np.isnan(fold_test(np.array([0.1, np.nan]), 0.25)[1:]).all()
    assert fold_test(np.zeros(5), 0.25) == (0.0, 0.0, 1.0)
    assert np.isnan(fold_test(np.full(3, np.nan), 0.25)).all()


@pytest.mark.parametrize(
    ("low", "high", "p", "higher", "said"),
    [
        (0.01, 0.2, 0.04, True, "better"),
        (0.01, 0.2, 0.04, False, "worse"),
        (-0.2, -0.01, 0.04, True, "worse"),
        (0.01, 0.2, 0.06, True, "open"),
        (-0.01, 0.2, 0.04, True, "open"),
        (0.01, 0.2, float("nan"), True, "untested"),
    ],
)
def test_better_takes_both_the_adjusted_p_and_the_interval(
    low: float, high: float, p: float, higher: bool, said: str
) -> None:
    assert verdict(low, high, p, higher) == said


# --- survival curves ------------------------------------------------------------------------------


def _survival(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    time = np.ceil(rng.exponential(20 * np.exp(-score)))
    censored = np.ceil(rng.exponential(30, n))
    return np.minimum(time, censored), time <= censored, score


def test_kaplan_meier_panels_are_those_of_lifelines() -> None:
    time, event, score = _survival()
    group = (score > 0).astype(int)
    panel = kaplan_meier_panel(time, event, score, group, "median", [0.0, 10, 50], 0.95)
    for g, found in enumerate(panel["groups"]):
        one = group == g
        fitter = KaplanMeierFitter().fit(time[one], event[one])
        at = np.array([0.0, 3, 10, 33, time[one].max()])
        steps = np.searchsorted(found["time"], at, side="right") - 1
        assert np.array(found["survival"])[steps] == pytest.approx(fitter.predict(at).to_numpy())
        assert found["at_risk"] == [int((time[one] >= t).sum()) for t in (0, 10, 50)]
        assert found["n"] == one.sum() and found["events"] == event[one].sum()
        assert len(found["censored"]) == (~event[one]).sum()
        assert all(
            low <= s <= high
            for low, s, high in zip(found["low"], found["survival"], found["high"], strict=True)
        )
        assert found["survival"][0] == 1 and found["time"][0] == 0
    low, high = group == 0, group == 1
    expected = logrank_test(time[low], time[high], event[low], event[high])
    assert panel["logrank_p"] == pytest.approx(expected.p_value)
    table = pd.DataFrame({"t": time, "e": event, "x": group})
    cox = CoxPHFitter().fit(table, "t", "e")
    assert panel["hazard_ratio"]["value"] == pytest.approx(float(cox.hazard_ratios_["x"]))
    assert panel["hazard_ratio_per_sd"]["low"] > 1 and not panel["notes"]
    scaled = pd.DataFrame({"t": time, "e": event, "x": score / score.std()})
    per_sd = float(CoxPHFitter().fit(scaled, "t", "e").hazard_ratios_["x"])
    # Scores come in deviations of the training part; the ratio is per deviation of these cases.
    for factor in (1.0, 0.2):
        again = kaplan_meier_panel(time, event, factor * score, group, "median", [0.0], 0.95)
        assert again["hazard_ratio_per_sd"]["value"] == pytest.approx(per_sd, rel=1e-4)


@pytest.mark.parametrize("cutoff", ["median", "tertiles"])
def test_an_empty_risk_group_is_drawn_flat_and_said(cutoff: str) -> None:
    time, event, score = _survival(30)
    everyone = np.zeros(30, dtype=int)
    panel = kaplan_meier_panel(time, event, score, everyone, cutoff, [0.0, 10.0], 0.95)
    empty = panel["groups"][-1]
    assert (empty["n"], empty["survival"], empty["at_risk"]) == (0, [1.0], [0, 0])
    assert panel["logrank_p"] is None and panel["hazard_ratio"] is None
    assert any("no case is in the high risk group" in note for note in panel["notes"])


def test_groups_without_events_have_curves_but_no_ratio() -> None:
    time = np.arange(1.0, 21)
    event = np.arange(20) >= 10
    group = event.astype(int)
    panel = kaplan_meier_panel(time, event, group * 1.0, group, "median", [0.0], 0.95)
    assert panel["hazard_ratio"] is None
    assert panel["groups"][0]["survival"] == [1.0, 1.0]
    assert any("a group has no event" in note for note in panel["notes"])
    none = kaplan_meier_panel(time, event & False, group * 1.0, group, "median", [0.0], 0.95)
    assert none["logrank_p"] is None and none["hazard_ratio_per_sd"] is None


def test_ticks_are_round_and_reach_the_end() -> None:
    assert ticks(100.0) == [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]
    for longest in (0.7, 3.0, 59.0, 149.2, 4500.0):
        found = ticks(longest)
        assert 4 <= len(found) <= 7 and found[-1] - 1e-6 < longest < found[-1] + found[1] - 1e-6


def test_breslow_is_that_of_scikit_survival() -> None:
    time, event, score = _survival()
    at = np.unique(time)
    library = BreslowEstimator().fit(score - score.mean(), event, time).cum_baseline_hazard_
    assert breslow(time, event, score, at) == pytest.approx(library(at))
    assert breslow(time, event, score, np.array([0.0]))[0] == 0
    assert np.isfinite(breslow(time, event, score * 1e4, at)).all()


def test_survival_is_interpolated_between_edges() -> None:
    found = interpolate(np.array([2.0, 4.0]), np.array([[0.8, 0.4]]), np.array([0.0, 1, 2, 3, 9]))
    assert found[0] == pytest.approx([1, 0.9, 0.8, 0.6, 0.4])


def test_perfect_predictions_are_calibrated() -> None:
    rng = np.random.default_rng(0)
    rate = rng.choice([0.01, 0.05, 0.2], 3000)
    time = rng.exponential(1 / rate)
    censored = rng.exponential(30, 3000)
    found = survival_calibration(
        np.minimum(time, censored), time <= censored, np.exp(-rate * 8), 8.0, 0.95
    )
    assert found["observed"] == pytest.approx(found["predicted"], abs=0.05)
    assert sum(found["n"]) == 3000
    early = survival_calibration(np.array([5.0, 6.0]), np.array([True, True]), rate[:2], 1.0, 0.95)
    assert early["observed"] == [1.0]


# --- classification curves ------------------------------------------------------------------------


def test_calibration_groups_hold_every_case_once() -> None:
    rng = np.random.default_rng(0)
    score = rng.random(400)
    positive = rng.random(400) < score
    found = calibration(positive, score, 0.95)
    assert sum(found["n"]) == 400 and found["predicted"] == sorted(found["predicted"])
    inside = [
        low <= p <= high
        for low, p, high in zip(found["low"], found["predicted"], found["high"], strict=True)
    ]
    assert sum(inside) >= 8


def test_net_benefit_counts_true_and_false_alarms() -> None:
    positive = np.array([True, True, False, False, False])
    score = np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    found = decision(positive, score)
    at = found["threshold"].index(0.5)
    assert found["net_benefit"][at] == pytest.approx(1 / 5 - 1 / 5)
    at = found["threshold"].index(0.25)
    assert found["net_benefit"][at] == pytest.approx(2 / 5 - (1 / 5) / 3)
    assert found["treat_all"][at] == pytest.approx(2 / 5 - (3 / 5) / 3)
