"""What all probes share: folds grouped by case, scaled features, held-out predictions measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.config.probing import ProbingConfig
from pipeline.probing.gather import Tiles
from pipeline.probing.measure import Interval, confusion, macro_auc, scores
from pipeline.probing.probes import Probe

Split = tuple[np.ndarray, np.ndarray]


def folds_of(cfg: ProbingConfig, tiles: Tiles) -> Iterator[Split]:
    """Training and test tiles of each fold, stratified by class."""
    from sklearn.model_selection import StratifiedGroupKFold

    k = min(cfg.folds, tiles.n_cases)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=cfg.seed)
    yield from splitter.split(tiles.x, tiles.y, tiles.groups)


def said(method: Probe, tiles: Tiles, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Probabilities of the test tiles; features are standardised by the training tiles.

    Args:
        method: the probe.
        tiles: features, classes and cases of all tiles.
        train: int, numbers of the training tiles.
        test: int, numbers of the test tiles.
    """
    mean, deviation = tiles.x[train].mean(0), tiles.x[train].std(0)
    scale = np.where(deviation > 1e-6 * (1 + np.abs(mean)), deviation, np.inf)
    return method(
        (tiles.x[train] - mean) / scale,
        tiles.y[train],
        (tiles.x[test] - mean) / scale,
        len(tiles.classes),
    )


def measured(
    cfg: ProbingConfig,
    tiles: Tiles,
    folds: Sequence[Split],
    probabilities: np.ndarray,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Confusion by case, and one row per metric, of held-out predictions of all tiles.

    Args:
        cfg: the probing section.
        tiles: features, classes and cases of all tiles.
        folds: training and test tiles of each.
        probabilities: float (n, classes), of each tile when it was held out.
    """
    y, answers = tiles.y, probabilities.argmax(1)
    counts = confusion(y, answers, tiles.groups, len(tiles.classes))
    rng = np.random.default_rng(cfg.seed)  # the same resamples for every probe and teacher
    whole = scores(counts, cfg.bootstraps, cfg.confidence, rng)
    by_fold: dict[str, list[float]] = {}
    for _, test in folds:
        part = confusion(y[test], answers[test], tiles.groups[test], len(tiles.classes))
        for name, one in scores(part, 1, cfg.confidence, np.random.default_rng(0)).items():
            by_fold.setdefault(name, []).append(one.value)
        by_fold.setdefault("auc", []).append(macro_auc(y[test], probabilities[test]))
    rows = []
    for name in ("auc", *whole):
        interval: Interval | None = whole.get(name)
        rows.append(
            {
                "metric": name,
                "value": macro_auc(y, probabilities) if interval is None else interval.value,
                "low": None if interval is None else interval.low,
                "high": None if interval is None else interval.high,
                "fold_std": float(np.nanstd(by_fold[name], ddof=1)),
                "n_test": len(y),
            }
        )
    return counts, rows
