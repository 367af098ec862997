"""The probes and their measures against scikit-learn and against what must come out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from pipeline.probing.measure import confusion, macro_auc, scores
from pipeline.probing.probes import Probe, logistic, nearest_centre, neighbours, sgd_ensemble

PROBES: dict[str, Probe] = {
    "logistic": logistic,
    "sgd": sgd_ensemble(3),
    "knn_1": neighbours(1),
    "knn_20": neighbours(20),
    "few_shot": nearest_centre,
}


def tiles(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    centres = np.random.default_rng(9).normal(size=(3, 6)) * 2
    return (centres[y] + rng.normal(size=(n, 6))).astype(np.float32), y


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_tells_separate_classes_apart(name: str) -> None:
    (x, y), (test, truth) = tiles(200, 0), tiles(150, 1)
    found = PROBES[name](x, y, test, 4)
    assert found.shape == (150, 4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert (found[:, 3] == 0).all()  # a class that training lacks
    assert (found.argmax(1) == truth).mean() > 0.9


@pytest.mark.parametrize("name", PROBES)
def test_one_class_and_very_few_tiles_are_no_error(name: str) -> None:
    x, _ = tiles(2, 0)
    found = PROBES[name](x, np.array([1, 1]), x, 3)
    assert found.argmax(1).tolist() == [1, 1]


def test_nearest_neighbours_are_counted() -> None:
    x = np.array([[1, 0], [1, 0.1], [0, 1]], np.float32)
    votes = neighbours(2)(x, np.array([0, 1, 1]), np.array([[5, 0.1]], np.float32), 2)
    assert votes.tolist() == [[0.5, 0.5]]


def test_measures_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    y, groups = rng.integers(0, 3, 90), np.repeat(np.arange(9), 10)
    probabilities = rng.dirichlet(np.ones(3), 90) + 0.4 * np.eye(3)[y]
    probabilities /= probabilities.sum(1, keepdims=True)
    said = probabilities.argmax(1)
    found = scores(confusion(y, said, groups, 3), 200, 0.95, np.random.default_rng(1))
    assert found["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(y, said))
    assert found["f1"].value == pytest.approx(f1_score(y, said, average="macro"))
    expected = roc_auc_score(y, probabilities, multi_class="ovr")
    assert macro_auc(y, probabilities) == pytest.approx(expected)
    for interval in found.values():
        assert interval.low < interval.value < interval.high


def test_cases_are_resampled_not_tiles() -> None:
    """Two cases, one all right and one all wrong: no tile count makes this certain."""
    y, groups = np.zeros(2000, np.int64), np.repeat([0, 1], 1000)
    found = scores(confusion(y, groups, groups, 2), 300, 0.95, np.random.default_rng(0))
    assert (found["balanced_accuracy"].low, found["balanced_accuracy"].high) == (0, 1)
