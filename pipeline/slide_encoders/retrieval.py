"""How well slides find slides of the same class by their vectors, without any training.

For each slide the others of other patients are ranked by cosine. Of the first k: whether one has
its class (what is published as Acc@k), and whether most do (MVAcc@k), which is the k-nearest
neighbours' prediction. A teacher with several rows a slide stands for their mean.

Source: slide retrieval as Ding et al. 2024 (TITAN) measure it, with patients kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.bags.files import open_features, read_level
from pipeline.contracts import ledger
from pipeline.errors import UserError

BLOCK = 1024  # slides whose similarities are in memory at once


def slide_vectors(root: Path, teacher: str) -> dict[str, np.ndarray]:
    """Slide -> its vector, float64 (D,): the row, or the mean of its rows.

    Args:
        root: the results folder.
        teacher: of tiles, of regions or of slides.

    Raises:
        UserError: the run has no features of it.
        ArtifactError: a file is damaged.
    """
    found = {}
    for path in sorted((root / "features").glob("*/manifest/*.json")):
        if teacher not in path.parent.parent.name.split("+"):
            continue
        for record in ledger.read_manifest(path):
            if record.status == "ok" and record.stage == f"extraction/{teacher}":
                rows = read_level(open_features(root / record.path))
                found[record.slide_id] = rows.mean(0, dtype=np.float64)
    if not found:
        raise UserError(f"slide-retrieval: the run has no features of a teacher `{teacher}`")
    return found


def neighbours(vectors: np.ndarray, groups: np.ndarray, k: int) -> np.ndarray:
    """The k nearest rows of other groups by cosine, nearest first: int64 (n, k); -1 where there are
    fewer.

    Args:
        vectors: (n, D).
        groups: int (n,): rows of one group, a patient's slides, do not find each other.
        k: how many.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.maximum(lengths, 1e-12)
    found = np.full((len(vectors), k), -1, np.int64)
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, start + BLOCK)
        likeness = unit[rows] @ unit.T
        likeness[groups[rows, None] == groups[None]] = -np.inf
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
        real = np.isfinite(np.take_along_axis(likeness, order, 1))
        found[rows, : order.shape[1]] = np.where(real, order, -1)
    return found


def hits(nearest: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """For each row whether one of its first k neighbours has its class, and whether most do.

    Of classes that are equally frequent among the k, that of the nearest neighbour counts.

    Args:
        nearest: int (n, at least k), as `neighbours` makes it.
        labels: int (n,).
        k: how many neighbours.
    """
    some, most = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for i, row in enumerate(nearest[:, :k]):
        told = labels[row[row >= 0]]
        if not len(told):
            continue
        some[i] = labels[i] in told
        counts = np.bincount(told)
        first = next(label for label in told if counts[label] == counts.max())
        most[i] = first == labels[i]
    return some, most


def chance(labels: np.ndarray, groups: np.ndarray, k: int) -> float:
    """How often one of k neighbours has the class if they are drawn at random: a mean over rows.

    Args:
        labels: int (n,), classes.
        groups: int (n,): rows of one group do not find each other.
        k: how many are drawn.
    """
    found = []
    for label, group in zip(labels, groups, strict=True):
        others = labels[groups != group]
        n, same = len(others), int((others == label).sum())
        drawn = min(k, n)
        found.append(1 - math.comb(n - same, drawn) / math.comb(n, drawn) if n else 0.0)
    return float(np.mean(found))


def measure(
    vectors: Mapping[str, np.ndarray],
    label_of: Mapping[str, int],
    case_of: Mapping[str, str],
    ks: Sequence[int],
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """A row for each k: Acc@k and MVAcc@k with 95 % intervals of a bootstrap over cases.

    Args:
        vectors: slide -> vector.
        label_of: case -> class, of cases with a label.
        case_of: slide -> case.
        ks: numbers of neighbours.
        resamples: of the bootstrap.
        seed: of the resamples.

    Raises:
        UserError: there are not two cases with a label and a vector.
    """
    slides = [slide for slide in sorted(vectors) if case_of.get(slide) in label_of]
    names, groups = np.unique([case_of[slide] for slide in slides], return_inverse=True)
    if len(names) < 2:
        raise UserError("slide-retrieval: fewer than two cases have a label and a vector")
    labels = np.array([label_of[case_of[slide]] for slide in slides])
    nearest = neighbours(np.stack([vectors[slide] for slide in slides]), groups, max(ks))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    weights = drawn[:, groups]
    rows = []
    for k in ks:
        row: dict[str, float] = {"k": k, "slides": len(slides), "cases": len(names)}
        for name, right in zip(("acc", "mv_acc"), hits(nearest, labels, k), strict=True):
            spread = (weights * right).sum(1) / weights.sum(1)
            low, high = np.quantile(spread, [0.025, 0.975])
            row |= {name: float(right.mean()), f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"acc_by_chance": chance(labels, groups, k)})
    return pd.DataFrame(rows)
