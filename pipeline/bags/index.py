"""Which feature files make up each case's bag, and how many tiles each brings.

A bag is every tile of every slide of a case, in slide order. A teacher that has no file for a case
gives a bag of size 0: a token that is masked later, not a case that is dropped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.bags.files import FeatureFile, open_features
from pipeline.contracts.case_map import CaseMap
from pipeline.errors import ArtifactError, ConfigError


@dataclasses.dataclass(frozen=True)
class TeacherIndex:
    """One teacher's files for a list of cases.

    Attributes:
        name: the teacher.
        dims: width of each level, in the order the levels were asked for.
        files: for each case, its feature files in slide order (empty: the teacher is missing).
        sizes: int64 (cases,), tiles per case.
    """

    name: str
    dims: dict[str, int]
    files: tuple[tuple[FeatureFile, ...], ...]
    sizes: np.ndarray

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(self.dims)

    @property
    def bytes(self) -> int:
        """What all bags take in memory, read."""
        width = sum(self.dims.values())
        return sum(f.n_tiles * f.value_bytes * width for group in self.files for f in group)

    @property
    def starts(self) -> np.ndarray:
        """int64 (cases,): where each case begins when all bags are laid end to end."""
        return np.cumsum(self.sizes) - self.sizes


def available_levels(mapping: CaseMap, teacher: str, wanted: Sequence[str]) -> list[str]:
    """The wanted levels that a teacher's files have; imported teachers often have `high` alone.

    Args:
        mapping: case → teacher → files.
        teacher: the teacher's name.
        wanted: the levels of the config.

    Raises:
        ConfigError: the mapping does not know the teacher.
    """
    teachers = mapping.teachers
    if teacher not in teachers:
        raise ConfigError(
            f"case_to_features.json has no teacher `{teacher}` (it has {', '.join(teachers)}); "
            "add it to extraction.teachers and run the mapping again"
        )
    return [level for level in wanted if level in teachers[teacher].dims]


def index_teacher(
    mapping: CaseMap,
    root: Path,
    teacher: str,
    levels: Sequence[str],
    cases: Sequence[str],
) -> TeacherIndex:
    """Open (not read) every feature file of a teacher for the given cases.

    Args:
        mapping: the feature files of each case.
        root: the results folder, which relative paths start from.
        teacher: the teacher's name.
        levels: the levels to read, all of which the teacher must have.
        cases: case ids, in the order of the bags.

    Raises:
        ArtifactError: a file is missing, damaged, or of another width than the mapping says.
    """
    dims = {level: mapping.teachers[teacher].dims[level] for level in levels}
    files: list[tuple[FeatureFile, ...]] = []
    for case in cases:
        paths = mapping.cases.get(case, {}).get(teacher, [])
        opened = tuple(open_features(root / path) for path in paths)
        for file in opened:
            for level, dim in dims.items():
                if file.dims.get(level) != dim:
                    raise ArtifactError(
                        f"{file.path}: level `{level}` is {file.dims.get(level)} wide, but the "
                        f"other files of `{teacher}` are {dim}; extract or export it again"
                    )
        files.append(opened)
    sizes = np.array([sum(f.n_tiles for f in group) for group in files], dtype=np.int64)
    return TeacherIndex(teacher, dims, tuple(files), sizes)
