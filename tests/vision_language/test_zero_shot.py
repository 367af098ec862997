"""Predictions, the choice of a way on validation alone, spread, few-shot curve."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.contracts.folds import Fold
from pipeline.contracts.labels import Labels
from pipeline.vision_language import few_shot, zero_shot

N = 12
CASES = tuple(f"c{i:02d}" for i in range(N))
LABELS = Labels(CASES, {}, classes=("a", "b", "c"), label=np.arange(N) % 3)
FOLDS = (
    Fold(0, train=CASES[:3], val=CASES[3:6], test=CASES[6:]),
    Fold(1, train=CASES[6:9], val=CASES[9:], test=CASES[:6]),
)
WAYS = zero_shot.choices((0, 8), (1, 5))


def scores() -> np.ndarray:
    """(ways, cases, classes): way 3 is right on fold 0's validation cases, way 1 on its test's."""
    found = np.zeros((4, N, 3))
    found[..., 0] = 0.1
    for i in range(N):
        right = np.eye(3)[i % 3]
        found[3, i] += right if 3 <= i < 6 else 0
        found[1, i] += right if i >= 6 else 0
    return found


def test_a_way_is_chosen_on_validation_alone() -> None:
    table, chosen = zero_shot.predictions(scores(), LABELS, FOLDS, 10.0, (0, 4))
    assert chosen == [3, 1]  # of fold 1 the validation cases are of those that way 1 gets right
    test = table[(table["fold"] == 0) & (table["split"] == "test") & (table["seed"] == 4)]
    assert test["prob_a"].tolist() == pytest.approx([test["prob_a"].iloc[0]] * 6)
    wanted = np.exp([1.0, 0, 0]) / np.exp([1.0, 0, 0]).sum()
    assert test[["prob_a", "prob_b", "prob_c"]].iloc[0].tolist() == pytest.approx(wanted.tolist())


def test_what_test_cases_score_changes_no_choice() -> None:
    changed = scores()
    changed[:, 6:] = np.random.default_rng(0).normal(size=changed[:, 6:].shape)
    _, chosen = zero_shot.predictions(changed, LABELS, FOLDS[:1], 10.0, (0,))
    assert chosen == [3]


def test_the_table_has_every_part_and_leaves_out_cases_without_features() -> None:
    some = scores()
    some[:, 7] = np.nan
    table, _ = zero_shot.predictions(some, LABELS, FOLDS, 1.0, (0,))
    assert set(table["split"]) == {"train", "val", "test"}
    assert len(table) == 2 * N - 2
    assert "c07" not in set(table["case_id"])
    assert table["label"].tolist()[0] == "a"


def test_without_validation_cases_the_first_way_is_taken() -> None:
    assert zero_shot.choose(scores(), LABELS.label, np.array([], dtype=int)) == 0  # type: ignore[arg-type]


def test_balanced_accuracy_counts_classes_alike() -> None:
    label, said = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert zero_shot.balanced_accuracy(label, said) == pytest.approx((2 / 3 + 1) / 2)


def test_spread_over_draws() -> None:
    label = np.array([0, 1, 2])
    right, wrong = np.eye(3), np.roll(np.eye(3), 1, axis=1)
    drawn = np.stack([right, wrong, right, right], axis=1)[None]
    row = zero_shot.spread(drawn, right[None], label, WAYS[:1])[0]
    assert (row["min"], row["max"], row["median"], row["ensemble"]) == (0.0, 1.0, 1.0, 1.0)
    assert row["q25"] == pytest.approx(0.75) and row["draws"] == 4


def test_few_shot_curve_rises_and_stops_where_cases_end() -> None:
    rng = np.random.default_rng(0)
    n = 120
    cases = tuple(f"d{i:03d}" for i in range(n))
    label = np.arange(n) % 3
    means = rng.normal(size=(n, 20)) + 1.2 * np.eye(20)[label]
    labels = Labels(cases, {}, classes=("a", "b", "c"), label=label)
    folds = [
        Fold(k, train=cases[40 * (1 - k) : 40 * (1 - k) + 40], val=(), test=cases[80:])
        for k in range(2)
    ]
    rows = few_shot.curve(means, labels, folds, (1, 4, 13, 14), 8, seed=3)
    assert [row["shots"] for row in rows] == [1, 4, 13]
    assert rows[-1]["median"] > rows[0]["median"] + 0.1
    assert rows == few_shot.curve(means, labels, folds, (1, 4, 13, 14), 8, seed=3)
    noise = few_shot.curve(rng.normal(size=(n, 20)), labels, folds, (13,), 8, seed=3)
    assert noise[0]["median"] < 0.5
