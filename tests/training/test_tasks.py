"""Task heads: fitted on train alone, rebuilt from their facts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.contracts.labels import Labels, Task
from pipeline.errors import UserError
from pipeline.training.metrics import concordance, macro_auc, mean_pearson
from pipeline.training.tasks import fit_head, from_facts

NLL = SurvivalTask(type="survival", time="t", event="e", loss="nll")
COX = SurvivalTask(type="survival", time="t", event="e", loss="cox")
RANKING = SurvivalTask(type="survival", time="t", event="e", loss="ranking")
CLASSES = ClassificationTask(type="classification", label="l")
REGRESSION = RegressionTask(type="regression", targets=["p", "q"])
N = 24


def labels(task: Task, seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    cases = tuple(f"c{i:02d}" for i in range(N))
    if isinstance(task, SurvivalTask):
        event = np.arange(N) % 3 > 0
        return Labels(cases, {}, time=rng.exponential(20, N), event=event)
    if isinstance(task, ClassificationTask):
        return Labels(cases, {}, classes=("x", "y", "z"), label=np.arange(N) % 4 % 3)
    return Labels(cases, {}, targets=rng.normal([5, -100], [2, 30], (N, 2)))


TASKS = [NLL, COX, RANKING, CLASSES, REGRESSION]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: getattr(t, "loss", t.type))
def test_nothing_outside_train_changes_the_head(task: Task) -> None:
    train = np.arange(0, 16)
    one, two = labels(task), labels(task, seed=1)
    for name in ("time", "targets"):
        a, b = getattr(one, name), getattr(two, name)
        if a is not None:
            b[train] = a[train]
    assert fit_head(task, one, train).facts() == fit_head(task, two, train).facts()


@pytest.mark.parametrize("task", TASKS, ids=lambda t: getattr(t, "loss", t.type))
def test_facts_rebuild_the_head_and_all_methods_fit_together(task: Task) -> None:
    known = labels(task)
    head = fit_head(task, known, np.arange(16))
    assert from_facts(head.facts()).facts() == head.facts()
    y = head.targets(known)
    out = np.random.default_rng(0).normal(size=(N, head.outputs)).astype(np.float32)
    loss = head.loss(torch.from_numpy(out), torch.from_numpy(y))
    assert torch.isfinite(loss)
    assert np.isfinite(head.metric(out, y))
    assert head.score(out).shape == head.strata(y).shape == (N,)
    assert all(len(column) == N for column in head.columns(out, y).values())


def test_survival_predictions_have_a_column_per_edge_and_risk_is_worse_when_high() -> None:
    known = labels(NLL)
    head = fit_head(NLL, known, np.arange(N))
    out = np.stack([np.full(4, -1.0), np.full(4, 2.0)]).astype(np.float32)
    columns = head.columns(out, head.targets(known)[:2])
    assert [c for c in columns if c.startswith("surv_")] == ["surv_1", "surv_2", "surv_3"]
    assert columns["risk"][1] > columns["risk"][0]
    assert (columns["surv_1"] > columns["surv_2"]).all()


def test_class_weights_make_classes_count_alike() -> None:
    known = labels(CLASSES)
    head = fit_head(CLASSES, known, np.arange(N))
    facts = head.facts()
    counts = np.bincount(known.label)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.array(facts["class_weights"]) * counts, N / 3)
    probabilities = head.columns(np.zeros((N, 3), np.float32), head.targets(known))
    assert probabilities["prob_x"][0] == pytest.approx(1 / 3)
    assert list(probabilities["label"][:4]) == ["x", "y", "z", "x"]


def test_a_train_part_that_cannot_be_learned_from_is_refused() -> None:
    known = labels(COX)
    censored = np.flatnonzero(~known.event)  # type: ignore[operator]
    with pytest.raises(UserError, match="no event"):
        fit_head(COX, known, censored)
    with pytest.raises(UserError, match="class `z`"):
        fit_head(CLASSES, labels(CLASSES), np.array([0, 1, 4, 5]))


def test_regression_predictions_are_in_the_targets_unit() -> None:
    known = labels(REGRESSION)
    head = fit_head(REGRESSION, known, np.arange(16))
    y = head.targets(known)
    columns = head.columns(y, y)
    np.testing.assert_allclose(columns["pred_q"], known.targets[:, 1], rtol=1e-4)  # type: ignore[index]
    assert abs(y[:16].mean(0)).max() < 1e-6


def test_concordance_counts_pairs_as_harrell_does() -> None:
    time, event = np.array([1.0, 2, 3, 3]), np.array([1.0, 0, 1, 0])
    assert concordance(np.array([4.0, 3, 2, 1]), time, event) == 1.0
    assert concordance(np.array([1.0, 2, 3, 4]), time, event) == 0.0
    assert concordance(np.zeros(4), time, event) == 0.5
    assert np.isnan(concordance(np.zeros(2), np.ones(2), np.zeros(2)))


def test_auc_and_pearson() -> None:
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert macro_auc(p, np.array([0, 0, 1])) == 1.0
    assert np.isnan(macro_auc(p, np.array([0, 0, 0])))
    x = np.arange(5.0)[:, None]
    assert mean_pearson(x, -2 * x) == pytest.approx(-1)
    assert np.isnan(mean_pearson(x * 0, x))
