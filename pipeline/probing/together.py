"""All teachers' tiles at once: whether fusing or distilling them beats the best single one.

On the labelled tiles that all teachers have, with one set of folds, writes `probing/all/`:

- `students.json` (Snakemake output): classes, counts, the comparisons, and the rows of
- `students.csv`: model (a teacher, `concatenation`, or a student), probe, metric, value, low, high,
  fold_std, n_train, n_test, n_parameters.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.probing import ProbingConfig, TileStudentsJob
from pipeline.contracts.chunks import manifests_of
from pipeline.contracts.tile_probes import (
    Comparison,
    ModelRow,
    TileStudents,
    write_tile_students,
)
from pipeline.files.artifacts import write_text
from pipeline.probing.gather import cases_of, usable
from pipeline.probing.gather_together import Joint, Source, gather_together
from pipeline.probing.measure import difference
from pipeline.probing.probes import logistic, neighbours
from pipeline.probing.rounds import Split, folds_of, measured, said
from pipeline.probing.stage import csv_text, reason
from pipeline.probing.students import student_probabilities
from pipeline.runtime import progress

# Raised when numbers of students on tiles change. 1: the first. 2: the loop of all trainings.
VERSION = 2

FUSED = "concatenation"


def run(*, job: TileStudentsJob, root: Path, base: Path) -> None:
    """Probe all teachers together, and train students on their tiles.

    Args:
        job: the config, and where each teacher's manifests and tiles are.
        root: the results folder.
        base: folder that the config's relative paths start from.

    Raises:
        UserError: an annotation cannot be read.
        ArtifactError: a feature file or a table is damaged.
    """
    cfg, case_of = job.probing, cases_of(root)
    sources = {}
    for teacher, folder in job.manifests.items():
        records = usable(manifests_of(root, f"features/{folder}"), teacher, case_of)
        sources[teacher] = Source({r.slide_id: r for r in records}, root / job.tiles[teacher])
    joint = gather_together(cfg, sources, case_of, root, base)
    result = TileStudents(
        reason=reason(joint.tiles if joint else None),
        left=joint.left if joint else [],
        rows=[],
        comparisons=[],
    )
    if joint is not None:
        counted = np.bincount(joint.tiles.y, minlength=len(joint.tiles.classes))
        result = dataclasses.replace(
            result,
            classes=dict(zip(joint.tiles.classes, counted.tolist(), strict=True)),
            n_tiles=len(joint.tiles.y),
            n_slides=joint.tiles.n_slides,
            n_cases=joint.tiles.n_cases,
            teachers=list(joint.features),
        )
        if not result.reason:
            rows, comparisons = compared(cfg, joint)
            result = dataclasses.replace(result, rows=rows, comparisons=comparisons)
    write_text(root / "probing" / "all" / "students.csv", csv_text(result.rows, ModelRow))
    write_tile_students(root, result)


def compared(cfg: ProbingConfig, joint: Joint) -> tuple[list[ModelRow], list[Comparison]]:
    """Rows of every model, and each student and fusion against the best single linear probe."""
    teachers = list(joint.features)
    folds = list(folds_of(cfg, joint.of(cfg.level, teachers[0])))
    k = max(cfg.neighbours, default=20)
    probes = {"logistic": logistic, f"knn_{k}": neighbours(k)}
    rows: list[ModelRow] = []
    counts: dict[tuple[str, str], np.ndarray] = {}

    def note(model: str, probe: str, answers: np.ndarray, size: int | None) -> None:
        counts[model, probe], found = measured(cfg, joint.tiles, folds, answers)
        train = int(np.mean([len(learned) for learned, _ in folds]))
        rows.extend(
            ModelRow(model=model, probe=probe, n_train=train, n_parameters=size, **row)
            for row in found
        )

    probed = [(t, [t]) for t in teachers] + [(FUSED, teachers)] * (len(teachers) > 1)
    for model, members in progress.counted(probed, "models probed"):
        tiles = joint.of(cfg.level, *members)
        for name, probe in probes.items():
            answers = _held_out(folds, tiles.y, len(tiles.classes), tiles, probe)
            linear = (tiles.x.shape[1] + 1) * len(tiles.classes)
            note(model, name, answers, linear if name == "logistic" else None)
    for kind in progress.counted(cfg.students, "students trained"):
        y, groups, classes = joint.tiles.y, joint.tiles.groups, len(joint.tiles.classes)
        answers, size = student_probabilities(
            kind, joint.features, y, groups, classes, folds, cfg.epochs, cfg.seed
        )
        note(kind, "student", answers, size)
    value = {(r.model, r.probe): r.value for r in rows if r.metric == METRIC}
    best = max(teachers, key=lambda teacher: value[teacher, "logistic"])
    fused = [(FUSED, "logistic"), *((kind, "student") for kind in cfg.students)]
    comparisons = []
    for key in fused:
        if key in counts:
            rng = np.random.default_rng(cfg.seed)
            found = difference(
                counts[key], counts[best, "logistic"], cfg.bootstraps, cfg.confidence, rng
            )
            comparisons.append(Comparison(model=key[0], other=best, metric=METRIC, **found))
    return rows, comparisons


METRIC = "balanced_accuracy"


def _held_out(
    folds: list[Split], y: np.ndarray, classes: int, tiles: Any, probe: Any
) -> np.ndarray:
    answers = np.zeros((len(y), classes))
    for train, test in folds:
        answers[test] = said(probe, tiles, train, test)
    return answers
