"""`case_to_features.json`: which feature files each case has of each teacher.

Written by mapping, read by training and by all who look at bags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from pipeline.contracts.chunks import manifests_of
from pipeline.contracts.ledger import read_manifests
from pipeline.contracts.same_features import check_same_features
from pipeline.errors import ArtifactError
from pipeline.files.parquet import read_table
from pipeline.files.typed_json import read_typed, write_typed

FILE = "case_to_features.json"


@dataclasses.dataclass(frozen=True)
class TeacherLevels:
    """The levels that all feature files of a teacher have.

    Attributes:
        dims: level -> width of its features.
    """

    dims: dict[str, int]


@dataclasses.dataclass(frozen=True)
class CaseMap:
    """All cases with at least one usable slide.

    Attributes:
        teachers: teacher -> its levels.
        cases: case -> teacher -> feature files, relative to the results folder, or absolute where
            they were imported.
    """

    teachers: dict[str, TeacherLevels]
    cases: dict[str, dict[str, list[str]]]


def with_made(mapping: CaseMap, root: Path, made: Mapping[str, str]) -> CaseMap:
    """The map with encoders that the workflow made, which came after it.

    Args:
        mapping: the map of a results folder.
        root: that folder.
        made: what a model calls an encoder -> the folder of `features/` with its features.

    Raises:
        ArtifactError: an encoder lacks a slide that all others have, or has features of different
            widths.
    """
    if not made:
        return mapping
    table = read_table(root / "slides.parquet")
    case_of = dict(zip(table["slide_id"].astype(str), table["case_id"].astype(str), strict=True))
    teachers, cases = dict(mapping.teachers), {k: dict(v) for k, v in mapping.cases.items()}
    for teacher, folder in made.items():
        if teacher in mapping.teachers:  # of a config without other teachers
            continue
        records = read_manifests(manifests_of(root, f"features/{folder}"))
        teachers[teacher] = TeacherLevels(check_same_features(folder, records))
        for record in records:
            case = case_of[record.slide_id]
            if record.status == "ok" and case in cases:
                cases[case].setdefault(teacher, []).append(record.path)
        # An imported file, whose path is absolute, may be of a slide that cannot be read here.
        own = {
            case
            for case, files in cases.items()
            if not any(path.startswith("/") for of in files.values() for path in of)
        }
        lacking = sorted(case for case in own if teacher not in cases[case])
        if lacking:
            why = {r.reason for r in records if case_of[r.slide_id] == lacking[0] and r.reason}
            raise ArtifactError(
                f"features/{folder}: {len(lacking)} cases that other teachers have are missing, "
                f"the first is `{lacking[0]}` ({'; '.join(sorted(why)) or 'no record'}); run "
                "`snakemake --forcerun extraction`"
            )
    return CaseMap(teachers, cases)


def write_case_map(root: Path, mapping: CaseMap) -> None:
    """Write the map into the results folder."""
    write_typed(root / FILE, mapping)


def read_case_map(root: Path) -> CaseMap:
    """Read the map of a results folder.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / FILE, CaseMap)
