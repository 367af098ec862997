"""Folds from elsewhere: CLAM-style `splits_<k>.csv` and `splits_<k>_bool.csv`.

The first has a column each of ids for train, val and test; the second a row an id and a column of
booleans each. Ids are cases or slides. What cannot be used is excluded with its reason; a split in
which validation and test share cases is refused, or labelled for what it is.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.contracts.folds import PARTS, Fold, Label, Part
from pipeline.contracts.folds_summary import Tests
from pipeline.contracts.patient import patient
from pipeline.errors import UserError
from pipeline.folds.units import Units

Parts = dict[Part, frozenset[str]]

# Of slides and of feature files.
_ENDINGS = frozenset(
    {
        *(".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".czi"),
        *(".qptiff", ".dcm", ".isyntax", ".zarr", ".png", ".jpg"),
        *(".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz"),
    }
)


@dataclasses.dataclass(frozen=True)
class Imported:
    """Imported folds, and the ids in their files that this run cannot use, with reasons."""

    folds: list[Fold]
    excluded: dict[str, str]


def read_folds(
    units: Units,
    slides: pd.DataFrame,
    *,
    folder: Path,
    grouped: bool,
    allow_validation_is_test: bool,
) -> Imported:
    """Read the folds of a task, as many as there are files: one published split is one fold.

    An id is that of a case or of a slide. One that is neither is taken for the case that it names
    in another spelling, where there is only one: with a file ending, as a number (`1.0` for
    `0001`), or in another letter case.

    Args:
        units: the task's cases.
        slides: the slide table, for files that name slides.
        folder: `folds.import_dir`; its subfolder with the task's name is used where there is one.
        grouped: whether a site must not be in two parts.
        allow_validation_is_test: accept that validation and test share cases.

    Raises:
        UserError: a file is missing or unreadable, ids are unknown throughout, slides of a case or
            cases of a site stand in several parts, or parts share cases.
    """
    folder = folder_of(folder, units.name)
    by_slide = _cases_by_slide(slides)
    case_of = {case: case for case in {*by_slide.values(), *units.cases}} | by_slide
    spelled = _by_spelling(case_of)
    known, excluded = set(units.cases), {}
    parts: list[tuple[Path, Parts]] = []
    for index in range(count_folds(folder)):
        path, ids = _fold_ids(folder, index)
        cases: Parts = {}
        for part, names in ids.items():
            found = {case_of.get(name) or spelled.get(_spelling(name), name) for name in names}
            for case in sorted(found - known):
                excluded[case] = units.excluded.get(
                    case, "in the imported folds, not in the cohort"
                )
            cases[part] = frozenset(found & known)
        empty = [part for part in PARTS if not cases[part]]
        if empty:
            raise UserError(
                f"{path}: no usable case in {', '.join(empty)}. Its ids look like "
                f"{_few(set().union(*ids.values()))}, this cohort's cases like {_few(known)}"
            )
        parts.append((path, cases))
    _check_train(parts, units, grouped)
    labelled: Label = "validation" if _shared(parts, allow_validation_is_test) else "test"
    folds = [
        Fold(
            index,
            tuple(sorted(cases["train"])),
            tuple(sorted(cases["val"])),
            tuple(sorted(cases["test"])),
            labelled,
        )
        for index, (_, cases) in enumerate(parts)
    ]
    used = {case for _, cases in parts for part in PARTS for case in cases[part]}
    excluded |= {case: "not in the imported folds" for case in sorted(known - used)}
    return Imported(folds, excluded)


def folder_of(folder: Path, task: str) -> Path:
    """Where a task's folds are: in the subfolder of its name, where there is one.

    Args:
        folder: `folds.import_dir`.
        task: the task's name.
    """
    return folder / task if (folder / task).is_dir() else folder


def count_folds(folder: Path) -> int:
    """How many folds a folder has, numbered from 0.

    Raises:
        UserError: it is no folder, or a number is left out.
    """
    if not folder.is_dir():
        raise UserError(f"folds.import_dir: {folder} is not a folder; it must hold splits_0.csv, …")
    found = (re.fullmatch(r"splits_(\d+)(_bool)?\.csv", path.name) for path in folder.iterdir())
    numbers = {int(match[1]) for match in found if match}
    absent = sorted(set(range(max(numbers, default=0) + 1)) - numbers)
    if absent:
        raise UserError(
            f"folds.import_dir: {folder} has neither splits_{absent[0]}.csv nor "
            f"splits_{absent[0]}_bool.csv; folds are numbered from 0 without a gap"
        )
    return len(numbers)


def _by_spelling(case_of: Mapping[str, str]) -> dict[str, str]:
    """Spelling -> case, of the spellings that belong to one case only."""
    cases: dict[str, set[str]] = {}
    for name, case in case_of.items():
        cases.setdefault(_spelling(name), set()).add(case)
    return {spelling: found.pop() for spelling, found in cases.items() if len(found) == 1}


def _spelling(name: str) -> str:
    """An id without folder, file ending, and how it was typed."""
    name = name.replace("\\", "/").rpartition("/")[2]
    stem, dot, ending = name.rpartition(".")
    return patient(stem if dot and f".{ending.lower()}" in _ENDINGS else name)


def _cases_by_slide(slides: pd.DataFrame) -> dict[str, str]:
    return dict(zip(slides["slide_id"].astype(str), slides["case_id"].astype(str), strict=True))


def _fold_ids(folder: Path, index: int) -> tuple[Path, Parts]:
    """The ids of a fold's parts, from the one of its two files there is, or both if they agree."""
    readers = {f"splits_{index}.csv": _from_columns, f"splits_{index}_bool.csv": _from_flags}
    found = {
        folder / name: reader(folder / name)
        for name, reader in readers.items()
        if (folder / name).is_file()
    }
    if not found:
        raise UserError(f"folds.import_dir: {folder} has neither {' nor '.join(readers)}")
    path, ids = next(iter(found.items()))
    if any(other != ids for other in found.values()):
        raise UserError(f"{path} and its _bool.csv do not agree; remove the one that is wrong")
    return path, ids


def _from_columns(path: Path) -> Parts:
    rows = _rows(path)
    return {part: frozenset(r[part].strip() for r in rows if r[part].strip()) for part in PARTS}


def _from_flags(path: Path) -> Parts:
    rows = _rows(path)
    key = next(iter(rows[0]))
    for line, row in enumerate(rows, start=2):
        if any(row[part].strip().lower() not in ("true", "false", "1", "0") for part in PARTS):
            raise UserError(f"{path}, line {line}: train, val and test must be True or False")
    return {
        part: frozenset(r[key].strip() for r in rows if r[part].strip().lower() in ("true", "1"))
        for part in PARTS
    }


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        reader = csv.DictReader(handle, restval="")
        absent = [part for part in PARTS if part not in (reader.fieldnames or [])]
        if absent:
            raise UserError(f"{path}: no column {', '.join(absent)}; expected train, val and test")
        rows = list(reader)
    if not rows:
        raise UserError(f"{path}: no row")
    return rows


def _check_train(parts: list[tuple[Path, Parts]], units: Units, grouped: bool) -> None:
    """Nothing that is trained on may be tested on, whatever the user allows."""
    site_of = dict(zip(units.cases, units.groups, strict=True)) if grouped else {}
    for path, cases in parts:
        others: tuple[Part, ...] = ("val", "test")
        for other in others:
            shared = cases["train"] & cases[other]
            if shared:
                raise UserError(
                    f"{path}: {len(shared)} case(s) are in both train and {other} (all slides of "
                    f"a case belong to one part), such as {_few(shared)}; correct the file"
                )
        if grouped:
            _check_sites(path, cases, site_of)


def _check_sites(path: Path, cases: Parts, site_of: Mapping[str, str]) -> None:
    train, val, test = ({site_of[case] for case in cases[part]} for part in PARTS)
    shared = (
        (train & val) | (train & test) | ((val & test) if cases["val"] != cases["test"] else set())
    )
    if shared:
        raise UserError(
            f"{path}: folds.group_by is site, but the site(s) {_few(shared)} are in more than one "
            f"part; correct the file, or use group_by: case"
        )


def _shared(parts: list[tuple[Path, Parts]], allowed: bool) -> bool:
    """Whether validation and test share cases in any fold."""
    for path, cases in parts:
        shared = cases["val"] & cases["test"]
        if shared and not allowed:
            raise UserError(
                f"{path}: {len(shared)} of {len(cases['test'])} test cases are in val too, such "
                f"as {_few(shared)}. A model that is chosen on its test cases has no test result. "
                f"Correct the file, or set folds.allow_validation_is_test: true, and every number "
                f"is labelled validation"
            )
        if shared:
            return True
    return False


def tests_are(folds: list[Fold]) -> Tests:
    """What the test parts are to one another: partition, incomplete or overlapping."""
    tested = [case for fold in folds for case in fold.test]
    known = {case for fold in folds for part in PARTS for case in fold.part(part)}
    values, counts = np.unique(np.array(tested, dtype=str), return_counts=True)
    if (counts > 1).any():
        return "overlapping"
    return "partition" if set(values.tolist()) == known else "incomplete"


def _few(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names)[:5])
