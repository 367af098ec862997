"""Retrieval of slides: who is found, who may not be, and what chance would find."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.slide_encoders.retrieval import chance, hits, measure, neighbours

ANGLES = np.array([0.0, 0.1, 0.25, 1.0, 1.15, 3.0])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1) * np.arange(1, 7)[:, None]


def test_neighbours_are_the_nearest_angles_of_other_patients() -> None:
    alone = neighbours(VECTORS, np.arange(6), 2)
    assert alone.tolist() == [[1, 2], [0, 2], [1, 0], [4, 2], [3, 2], [4, 3]]
    together = neighbours(VECTORS, np.array([0, 0, 1, 1, 1, 1]), 3)
    assert together[0].tolist() == [2, 3, 4] and together[5].tolist() == [1, 0, -1]


def test_one_of_k_and_most_of_k() -> None:
    nearest = np.array([[1, 2, 3], [0, 2, 3], [3, 0, -1], [-1, -1, -1]])
    some, most = hits(nearest, np.array([0, 0, 1, 1]), 3)
    assert some.tolist() == [True, True, True, False]
    # Of two classes once each the nearer one counts.
    assert most.tolist() == [False, False, True, False]
    some, most = hits(nearest, np.array([0, 0, 1, 1]), 1)
    assert some.tolist() == most.tolist() == [True, True, True, False]


def test_chance_is_that_of_all_draws() -> None:
    labels, groups = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 2, 2, 3])
    found = []
    for i in range(5):
        others = labels[groups != groups[i]]
        draws = list(itertools.combinations(others, 2))
        found.append(np.mean([labels[i] in draw for draw in draws]))
    assert chance(labels, groups, 2) == pytest.approx(np.mean(found))


def test_classes_that_are_apart_find_each_other_and_noise_finds_chance() -> None:
    rng = np.random.default_rng(0)
    cases = {f"s{i}": f"c{i // 2}" for i in range(80)}
    label_of = {f"c{i}": i % 2 for i in range(40)}
    noise = {slide: rng.standard_normal(8) for slide in cases}
    apart = {s: v * 0.1 + np.eye(8)[label_of[cases[s]]] for s, v in noise.items()}
    known = measure(apart, label_of, cases, (1, 5), resamples=200).set_index("k")
    none = measure(noise, label_of, cases, (1, 5), resamples=200).set_index("k")
    assert known.loc[1, "acc"] == known.loc[5, "mv_acc"] == 1
    assert abs(none.loc[1, "acc"] - none.loc[1, "acc_by_chance"]) < 0.2
    assert none.loc[1, "acc_low"] < none.loc[1, "acc"] < none.loc[1, "acc_high"]
    assert known.loc[1, ["slides", "cases"]].tolist() == [80, 40]
    # A patient's own slide, which is the same picture again, is no find.
    twice = {s: noise[f"s{int(s[1:]) // 2 * 2}"] for s in cases}
    assert measure(twice, label_of, cases, (1,), 200)["acc"][0] < 0.8


def test_nobody_to_find_is_said() -> None:
    with pytest.raises(UserError, match="fewer than two cases"):
        measure({"a": np.ones(2)}, {"c": 0}, {"a": "c"}, (1,))
