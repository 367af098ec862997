"""`case_to_features.json`: which feature files each case has of each teacher.

Written by mapping, read by training and by all who look at bags.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

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


def write_case_map(root: Path, mapping: CaseMap) -> None:
    """Write the map into the results folder."""
    write_typed(root / FILE, mapping)


def read_case_map(root: Path) -> CaseMap:
    """Read the map of a results folder.

    Raises:
        ArtifactError: it is missing or damaged.
    """
    return read_typed(root / FILE, CaseMap)
