"""From pooled scores to predictions of a task, and how far they depend on the words.

How tiles are smoothed and pooled is a choice. It is made in each fold by the balanced accuracy of
its validation part, and called so; no test case takes part in it. Prompts are not chosen at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.contracts.folds import PARTS, Fold
from pipeline.contracts.labels import Labels


@dataclasses.dataclass(frozen=True)
class Choice:
    """How scores become a case's prediction.

    Attributes:
        smoothing: neighbours that are averaged; 0: none.
        top_k: how many of the highest tiles are averaged; 0: all.
    """

    smoothing: int
    top_k: int


def choices(smoothing: Sequence[int], ks: Sequence[int]) -> list[Choice]:
    """Every way, in the order of the scores' first two axes."""
    return [Choice(s, k) for s in smoothing for k in ks]


def balanced_accuracy(label: np.ndarray, answers: np.ndarray) -> float:
    """Mean over classes of the share of their cases that are answered right; NaN without cases.

    Args:
        label: int (n,), true classes.
        answers: int (n,), answered classes.
    """
    return float(np.mean([(answers[label == c] == c).mean() for c in np.unique(label)] or [np.nan]))


def choose(scores: np.ndarray, label: np.ndarray, rows: np.ndarray) -> int:
    """The way with the highest balanced accuracy on some cases, the first of equals.

    Args:
        scores: (ways, cases, classes).
        label: int (cases,).
        rows: the cases that may be looked at.
    """
    if not len(rows):
        return 0
    answers = scores[:, rows].argmax(axis=-1)
    return int(np.argmax([balanced_accuracy(label[rows], one) for one in answers]))


def predictions(
    scores: np.ndarray,
    labels: Labels,
    folds: Sequence[Fold],
    scale: float,
    seeds: Sequence[int],
) -> tuple[pd.DataFrame, list[int]]:
    """The table of predictions as trained models leave it, and the way that each fold chose.

    Args:
        scores: (ways, cases, classes), cosines in the order of the labels' cases; NaN for a case
            without features.
        labels: of the task.
        folds: of the task.
        scale: cosines are multiplied by it before the softmax.
        seeds: of the trained models; the predictions are the same under each.

    Returns:
        columns seed, fold, split, case_id, label and `prob_<class>`; and for each fold the number
        of its way.
    """
    assert labels.label is not None
    place = {case: i for i, case in enumerate(labels.cases)}
    there = np.isfinite(scores).all(axis=(0, 2))
    tables, chosen = [], []
    for fold in folds:
        val = np.array([place[c] for c in fold.val if there[place[c]]], dtype=np.int64)
        way = choose(scores, labels.label, val)
        chosen.append(way)
        for part in PARTS:
            rows = np.array([place[c] for c in fold.part(part) if there[place[c]]], dtype=np.int64)
            if not len(rows):
                continue
            probabilities = softmax(scale * scores[way][rows])
            table = pd.DataFrame(
                {
                    "fold": fold.index,
                    "split": part,
                    "case_id": [labels.cases[i] for i in rows],
                    "label": [labels.classes[c] for c in labels.label[rows]],
                }
            )
            for c, name in enumerate(labels.classes):
                table[f"prob_{name}"] = probabilities[:, c]
            tables.append(table)
    once = pd.concat(tables, ignore_index=True)
    every = [once.assign(seed=seed) for seed in seeds]
    return pd.concat(every, ignore_index=True)[["seed", *once.columns]], chosen


def softmax(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    shifted = np.exp(values - values.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def spread(
    drawn: np.ndarray, all_words: np.ndarray, label: np.ndarray, ways: Sequence[Choice]
) -> list[dict[str, Any]]:
    """How the balanced accuracy of all tested cases varies over draws of prompts, for each way.

    Nothing is chosen from these rows.

    Args:
        drawn: (ways, cases, draws, classes), cosines.
        all_words: (ways, cases, classes), those with all synonyms and templates.
        label: int (cases,).
        ways: in the order of the first axis.

    Returns:
        a row a way: smoothing, top_k, draws, min, q25, median, q75, max, and `ensemble`, with all
        words together.
    """
    rows = []
    for w, way in enumerate(ways):
        answers = drawn[w].argmax(axis=-1)
        values = [balanced_accuracy(label, answers[:, d]) for d in range(answers.shape[1])]
        low, q25, median, q75, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
        rows.append(
            {
                "smoothing": way.smoothing,
                "top_k": way.top_k,
                "draws": len(values),
                "min": low,
                "q25": q25,
                "median": median,
                "q75": q75,
                "max": high,
                "ensemble": balanced_accuracy(label, all_words[w].argmax(axis=-1)),
            }
        )
    return rows
