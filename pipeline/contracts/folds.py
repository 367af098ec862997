"""Fold files: where they lie, and how they are read, with their promises checked.

The folds stage writes them; training and evaluation read them through here.

`folds/<task>/fold_<k>.csv` has the columns `case_id, split` (train, val, test). With nested
cross-validation `inner_<k>.csv` (`case_id, part`) deals train and val out to parts. `folds.json`
says whether numbers on the test part may be called that (`labelled`: `test` or `validation`) and
what the test parts are to one another (`tests`: `partition`, `incomplete` or `overlapping`).
"""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path
from typing import Literal

from pipeline.contracts.folds_summary import FoldsSummary, Label, folder, read_folds_summary
from pipeline.errors import ArtifactError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Fold:
    """One split of a task's cases.

    Attributes:
        index: the fold's number, from 0.
        train, val, test: case ids, sorted. Pairwise disjoint, unless `labelled` is `validation`:
            then val and test may share cases, and no number on them is a test result.
        labelled: what a number on the test part has to be called.
        inner: with nested cross-validation, train and val together in disjoint parts.
    """

    index: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    labelled: Label = "test"
    inner: tuple[tuple[str, ...], ...] = ()

    def part(self, name: Part) -> tuple[str, ...]:
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return parts[name]


def fold_path(root: Path, task: str, k: int) -> Path:
    """Where a fold is written.

    Args:
        root: the cohort's results folder.
        task: the task's name.
        k: number of the fold, from 0.
    """
    return folder(root, task) / f"fold_{k}.csv"


def inner_path(root: Path, task: str, k: int) -> Path:
    """Where the inner parts of a fold are written.

    Args:
        root: the cohort's results folder.
        task: the task's name.
        k: number of the fold, from 0.
    """
    return folder(root, task) / f"inner_{k}.csv"


def read_fold(root: Path, task: str, k: int) -> Fold:
    """Read one fold and check that its parts are disjoint.

    Args:
        root: the cohort's results folder.
        task: the task's name.
        k: number of the fold, from 0.

    Raises:
        ArtifactError: the file is missing or damaged, or its parts share a case.
    """
    return _read_both(root, task, k, read_folds_summary(root, task))


def read_folds(root: Path, task: str) -> list[Fold]:
    """Read all folds of a task; check each, and that the test parts partition the cases.

    Raises:
        ArtifactError: as `read_fold`, or the test parts do not partition the cases although the
            task's `folds.json` says so.
    """
    summary = read_folds_summary(root, task)
    folds = [_read_both(root, task, k, summary) for k in range(summary.k)]
    if summary.tests == "partition":
        check_partition(folds, str(folder(root, task)))
    return folds


def check_fold(fold: Fold, where: str) -> None:
    """Refuse a fold whose parts share a case.

    Raises:
        ArtifactError: names the parts, the cases and `where`.
    """
    pairs: tuple[tuple[Part, Part], ...] = (("train", "test"), ("train", "val"), ("val", "test"))
    for first, second in pairs:
        shared = sorted(set(fold.part(first)) & set(fold.part(second)))
        allowed = fold.labelled == "validation" and (first, second) == ("val", "test")
        if shared and not allowed:
            raise ArtifactError(
                f"{where}: {len(shared)} case(s) are in both {first} and {second}, such as "
                f"{', '.join(shared[:5])}; folds must be disjoint"
            )


def check_partition(folds: list[Fold], where: str) -> None:
    """Refuse folds whose test parts do not hold every case exactly once.

    Raises:
        ArtifactError: names the cases and `where`.
    """
    tested = Counter(case for fold in folds for case in fold.test)
    known = {case for fold in folds for part in PARTS for case in fold.part(part)}
    wrong = sorted(case for case in known if tested[case] != 1)
    if wrong:
        raise ArtifactError(
            f"{where}: the test parts must hold every case exactly once; {len(wrong)} case(s) "
            f"do not fit, such as {', '.join(wrong[:5])}"
        )


def _read_both(root: Path, task: str, k: int, summary: FoldsSummary) -> Fold:
    fold = _read(fold_path(root, task, k), k, summary.labelled)
    if not summary.inner:
        return fold
    path = inner_path(root, task, k)
    parts: list[list[str]] = [[] for _ in range(summary.inner)]
    try:
        with path.open(newline="") as handle:
            for row in csv.DictReader(handle):
                parts[int(row["part"])].append(row["case_id"])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the stage that makes it (`folds`)") from None
    except (KeyError, ValueError, IndexError, TypeError):
        raise ArtifactError(f"{path}: expected `case_id,part`; delete it, run `folds`") from None
    dealt = sorted(case for part in parts for case in part)
    if dealt != sorted({*fold.train, *fold.val}) or not all(parts):
        raise ArtifactError(
            f"{path}: its parts must hold every train and val case of fold {k} exactly once, and "
            "no other; delete it and run `folds` again"
        )
    return dataclasses.replace(fold, inner=tuple(tuple(sorted(part)) for part in parts))


def _read(path: Path, k: int, labelled: Label) -> Fold:
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    try:
        with path.open(newline="") as handle:
            for line, row in enumerate(csv.DictReader(handle), start=2):
                if row.get("split") not in parts or not row.get("case_id"):
                    raise ArtifactError(
                        f"{path}, line {line}: expected `case_id,split` with train, val or test"
                    )
                parts[row["split"]].append(row["case_id"])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the stage that makes it (`folds`)") from None
    twice = sorted({c for cases in parts.values() for c, n in Counter(cases).items() if n > 1})
    if twice:
        raise ArtifactError(f"{path}: {', '.join(twice[:5])} occur(s) twice in one part")
    empty = [part for part, cases in parts.items() if not cases]
    if empty:
        raise ArtifactError(f"{path}: no case in {', '.join(empty)}; delete it and run `folds`")
    ordered = {part: tuple(sorted(cases)) for part, cases in parts.items()}
    fold = Fold(k, ordered["train"], ordered["val"], ordered["test"], labelled)
    check_fold(fold, str(path))
    return fold
