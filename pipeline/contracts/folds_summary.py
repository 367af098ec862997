"""`folds.json` of a task: how its cases were split, and what every part holds.

Written by the folds stage; read by training, evaluation and the report.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from pipeline.files.artifacts import write_json
from pipeline.files.typed_json import read_typed

FILE = "folds.json"
Label = Literal["test", "validation"]
Tests = Literal["partition", "incomplete", "overlapping", "external"]


@dataclasses.dataclass(frozen=True)
class PartCounts:
    """What a part holds; None what a task of its type does not have, and the file leaves out.

    Attributes:
        cases: in it.
        events: of a survival task.
        classes: class -> cases, of a classification.
        means: of each target of a regression.
    """

    cases: int
    events: int | None = None
    classes: dict[str, int] | None = None
    means: list[float] | None = None


@dataclasses.dataclass(frozen=True)
class FoldCounts:
    """What a fold holds.

    Attributes:
        fold: its number, from 0.
        train, val, test: its parts.
    """

    fold: int
    train: PartCounts
    val: PartCounts
    test: PartCounts

    @property
    def parts(self) -> tuple[PartCounts, PartCounts, PartCounts]:
        """Training, validation and test."""
        return self.train, self.val, self.test


@dataclasses.dataclass(frozen=True)
class FoldsSummary:
    """How a task's cases were split.

    Attributes:
        task, type: name and type of the task.
        k: folds.
        labelled: whether numbers on the test parts may be called that.
        tests: what the test parts are to one another.
        seed: of the split.
        group_by: `case` or `site`.
        inner: inner folds of nested cross-validation; None without.
        mode: `mapping.cases`.
        source: `made` or `imported`.
        n_cases, n_groups: that are split.
        excluded: case -> why it is in no fold.
        folds: what each holds.
        files: that were written, relative to the results folder.
    """

    task: str
    type: str
    k: int
    labelled: Label
    tests: Tests
    seed: int
    group_by: str
    inner: int | None
    mode: str
    source: str
    n_cases: int
    n_groups: int
    excluded: dict[str, str]
    folds: list[FoldCounts]
    files: list[str]


def folder(root: Path, task: str) -> Path:
    """Where a task's folds lie.

    Args:
        root: the results folder.
        task: the task's name.
    """
    return root / "folds" / task


def write_folds_summary(root: Path, summary: FoldsSummary) -> None:
    """Write the summary of the task that it names."""
    data = dataclasses.asdict(summary)
    for fold in data["folds"]:
        for part in ("train", "val", "test"):
            fold[part] = {key: value for key, value in fold[part].items() if value is not None}
    write_json(folder(root, summary.task) / FILE, data)


def read_folds_summary(root: Path, task: str) -> FoldsSummary:
    """Read the summary of a task.

    Args:
        root: the results folder.
        task: the task's name.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(folder(root, task) / FILE, FoldsSummary)
