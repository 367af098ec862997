"""The probing stage: how well one teacher's tiles tell tissue classes apart, as they are.

For tiles that carry a class (an annotation, or a mask with classes), writes `probing/`:

- `<teacher>.json` (Snakemake output): the classes, what there was of each, the confusion of each
  probe, and the rows of
- `<teacher>.csv`: probe, training (`all`, a portion, or shots per class), metric, value, low, high,
  fold_std, n_train, n_test.

Folds are grouped by case, so that no patient's tiles are on both sides.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.config.probing import ProbingConfig, ProbingJob
from pipeline.contracts.chunks import manifests_of
from pipeline.contracts.tile_probes import (
    ProbeRow,
    TeacherProbes,
    write_teacher_probes,
)
from pipeline.files.artifacts import write_text
from pipeline.probing.gather import Tiles, cases_of, gather, usable
from pipeline.probing.probes import Probe, logistic, nearest_centre, neighbours, sgd_ensemble
from pipeline.probing.rounds import folds_of, measured, said
from pipeline.runtime import progress

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

# Raised when a probe's numbers change. 1: the first. 2: counts of each case.
VERSION = 2

LEAST_CASES = 3


def run(
    *,
    job: ProbingJob,
    root: Path,
    teacher: str,
    base: Path,
) -> None:
    """Probe one teacher.

    Args:
        job: the config, and where the teacher's manifests and tiles are.
        root: the results folder.
        teacher: its name.
        base: folder that the config's relative paths start from.

    Raises:
        UserError: an annotation cannot be read.
        ArtifactError: a feature file or a table is damaged.
    """
    cfg, case_of = job.probing, cases_of(root)
    records = usable(manifests_of(root, f"features/{job.manifests}"), teacher, case_of)
    found = gather(cfg, records, case_of, root / job.tiles, root, base)
    result = TeacherProbes(teacher=teacher, level=cfg.level, reason=reason(found), rows=[])
    if found is not None:
        counts = np.bincount(found.y, minlength=len(found.classes))
        result = dataclasses.replace(
            result,
            classes=dict(zip(found.classes, counts.tolist(), strict=True)),
            n_tiles=len(found.y),
            n_slides=found.n_slides,
            n_cases=found.n_cases,
        )
        if not result.reason:
            rows, counts_of = probe(cfg, found)
            result = dataclasses.replace(
                result,
                rows=rows,
                confusion={name: found.sum(0).tolist() for name, found in counts_of.items()},
                by_case={name: found.tolist() for name, found in counts_of.items()},
            )
    write_text(root / "probing" / f"{teacher}.csv", csv_text(result.rows, ProbeRow))
    write_teacher_probes(root, result)


def probe(cfg: ProbingConfig, tiles: Tiles) -> tuple[list[ProbeRow], dict[str, np.ndarray]]:
    """Rows of all probes, and counts (case, true, predicted) of each trained on `all`."""
    folds = list(folds_of(cfg, tiles))
    rows: list[ProbeRow] = []
    matrices: dict[str, np.ndarray] = {}
    rng = np.random.default_rng(cfg.seed)
    for name, method in progress.counted(_probes(cfg).items(), "probes"):
        for portion in cfg.portions:
            training = "all" if portion == 1 else f"{portion:g}"
            probabilities = np.zeros((len(tiles.y), len(tiles.classes)))
            used = []
            for train, test in folds:
                chosen = train if portion == 1 else _portion(tiles.y, train, portion, rng)
                probabilities[test] = said(method, tiles, chosen, test)
                used.append(len(chosen))
            counts, found = measured(cfg, tiles, folds, probabilities)
            if portion == 1:
                matrices[name] = counts
            rows += [
                ProbeRow(probe=name, training=training, n_train=int(np.mean(used)), **row)
                for row in found
            ]
    for shots in cfg.shots:
        rows.append(_few_shot(cfg, tiles, folds, shots, rng))
    return rows, matrices


def _probes(cfg: ProbingConfig) -> dict[str, Probe]:
    found: dict[str, Probe] = {"logistic": logistic}
    if cfg.members:
        found[f"sgd_{cfg.members}"] = sgd_ensemble(cfg.members)
    return found | {f"knn_{k}": neighbours(k) for k in cfg.neighbours}


def _portion(
    y: np.ndarray, train: np.ndarray, portion: float, rng: np.random.Generator
) -> np.ndarray:
    """A stratified part of the training tiles, at least one of each class that they have."""
    chosen = []
    for c in np.unique(y[train]):
        members = rng.permutation(train[y[train] == c])
        chosen.append(members[: max(1, round(portion * len(members)))])
    return np.sort(np.concatenate(chosen))


def _few_shot(
    cfg: ProbingConfig,
    tiles: Tiles,
    folds: list[tuple[np.ndarray, np.ndarray]],
    shots: int,
    rng: np.random.Generator,
) -> ProbeRow:
    """Balanced accuracy of `shots` tiles per class: mean over episodes, with their quantiles."""
    values = []
    for episode in range(cfg.episodes):
        train, test = folds[episode % len(folds)]
        chosen = np.concatenate(
            [rng.permutation(train[tiles.y[train] == c])[:shots] for c in np.unique(tiles.y[train])]
        )
        answers = said(nearest_centre, tiles, chosen, test).argmax(1)
        found = [(answers[tiles.y[test] == c] == c).mean() for c in np.unique(tiles.y[test])]
        values.append(float(np.mean(found)))
    tail = (1 - cfg.confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return ProbeRow(
        probe="few_shot",
        training=f"{shots} a class",
        metric="balanced_accuracy",
        value=float(np.mean(values)),
        low=float(low),
        high=float(high),
        fold_std=float(np.std(values, ddof=1)),
        n_train=shots * len(tiles.classes),
        n_test=int(np.mean([len(test) for _, test in folds])),
    )


def reason(tiles: Tiles | None) -> str:
    """Why there is nothing to measure; empty if there is."""
    if tiles is None:
        return "no tile has a class: give probing.annotations, or masks with class names"
    if len(tiles.classes) < 2:
        return f"all labelled tiles are `{tiles.classes[0]}`: nothing can be told apart"
    if tiles.n_cases < LEAST_CASES:
        return f"labelled tiles come from {tiles.n_cases} cases only: too few to hold some out"
    return ""


def csv_text(rows: Sequence[DataclassInstance], kind: type[DataclassInstance]) -> str:
    """Rows as CSV; what is not known is an empty cell.

    Args:
        rows: the rows; may be none.
        kind: of the rows, for the columns.
    """
    text = io.StringIO()
    text.write(",".join(field.name for field in dataclasses.fields(kind)) + "\n")
    for row in rows:
        cells = ["" if cell is None else cell for cell in dataclasses.astuple(row)]
        text.write(",".join(f"{c:.6g}" if isinstance(c, float) else str(c) for c in cells) + "\n")
    return text.getvalue()
