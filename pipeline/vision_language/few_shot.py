"""How many labelled cases words are worth: a linear probe that learns from n cases a class.

A case is the mean of its tiles' features. Each episode draws n cases of every class from the
training part of every fold, fits, and answers the test parts; the accuracy of an episode is that of
all tested cases together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.contracts.folds import Fold
from pipeline.contracts.labels import Labels
from pipeline.vision_language.zero_shot import balanced_accuracy


def curve(
    means: np.ndarray,
    labels: Labels,
    folds: Sequence[Fold],
    shots: Sequence[int],
    episodes: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Balanced accuracy by the number of training cases.

    Args:
        means: float (cases, D), in the order of the labels' cases; NaN without features.
        labels: of the task.
        folds: of the task.
        shots: cases of each class that are learned from.
        episodes: draws for each.
        seed: of the draws.

    Returns:
        a row for each number that every fold's training part can give: shots, episodes, q25,
        median, q75.
    """
    assert labels.label is not None
    place = {case: i for i, case in enumerate(labels.cases)}
    there = np.isfinite(means).all(axis=1)
    parts = [
        tuple(
            np.array([place[c] for c in part if there[place[c]]], dtype=np.int64)
            for part in (fold.train, fold.test)
        )
        for fold in folds
    ]
    classes = len(labels.classes)
    least = min(
        int(np.bincount(labels.label[train], minlength=classes).min()) for train, _ in parts
    )
    rows = []
    for n in shots:
        if n > least:
            continue
        rng = np.random.default_rng([seed, n])
        values = [_episode(means, labels.label, parts, n, rng) for _ in range(episodes)]
        q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        rows.append({"shots": n, "episodes": episodes, "q25": q25, "median": median, "q75": q75})
    return rows


def _episode(
    means: np.ndarray,
    label: np.ndarray,
    parts: Sequence[tuple[np.ndarray, ...]],
    n: int,
    rng: np.random.Generator,
) -> float:
    from sklearn.linear_model import LogisticRegression

    truth, answers = [], []
    for train, test in parts:
        if not len(test):
            continue
        chosen = np.concatenate(
            [rng.permutation(train[label[train] == c])[:n] for c in np.unique(label[train])]
        )
        # Scaled by the whole training part, whose labels are not needed for that.
        mean, deviation = means[train].mean(0), means[train].std(0)
        scale = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, np.inf)
        x = (means - mean) / scale
        probe = LogisticRegression(C=1.0 / x.shape[1] * 10, max_iter=1000)
        answers.append(probe.fit(x[chosen], label[chosen]).predict(x[test]))
        truth.append(label[test])
    return balanced_accuracy(np.concatenate(truth), np.concatenate(answers))
