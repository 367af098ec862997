"""`cohort_flow.json`: how many slides and cases came in, were used and were lost.

Written by mapping; read by the report and by the last lines of a run.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from pipeline.files.artifacts import read_json, write_json
from pipeline.files.typed_json import typed

FILE = "cohort_flow.json"


@dataclasses.dataclass(frozen=True)
class SlideCounts:
    """Slides of the sheet.

    Attributes:
        total: in the sheet.
        usable: with features of some teacher.
        with_all_teachers: with features of every teacher.
    """

    total: int
    usable: int
    with_all_teachers: int


@dataclasses.dataclass(frozen=True)
class CaseCounts:
    """Cases of the sheet.

    Attributes:
        total: in the sheet.
        usable: with a slide that has features.
        complete: with features of every teacher.
        used: by the folds, as `mapping.cases` has it.
    """

    total: int
    usable: int
    complete: int
    used: int


@dataclasses.dataclass(frozen=True)
class StageCounts:
    """What became of the slides of one stage.

    Attributes:
        stage: `tiling` or `extraction/<teacher>`.
        came_in: slides; the key `in` of the file.
        ok, empty, failed, excluded, missing: slides of each status.
        kinds: kind of reason -> slides that are not ok.
    """

    stage: str
    came_in: int
    ok: int
    empty: int
    failed: int
    excluded: int
    missing: int
    kinds: dict[str, int]


@dataclasses.dataclass(frozen=True)
class TeacherCounts:
    """What a teacher has.

    Attributes:
        slides, cases, tiles: with its features.
        dims: level -> width.
    """

    slides: int
    cases: int
    tiles: int
    dims: dict[str, int]


@dataclasses.dataclass(frozen=True)
class CohortFlow:
    """The counts of a cohort.

    Attributes:
        mode: `mapping.cases`.
        slides, cases: what came in and what is used.
        lost: kind of reason -> slides without features of any teacher.
        warned: slides that are used with a warning.
        stages: in the order of the work.
        teachers: teacher -> what it has.
        incomplete_cases: case -> the teachers it lacks.
        slide_columns: columns of the sheet that are not labels of a case.
    """

    mode: Literal["intersection", "union"]
    slides: SlideCounts
    cases: CaseCounts
    lost: dict[str, int]
    warned: int
    stages: list[StageCounts]
    teachers: dict[str, TeacherCounts]
    incomplete_cases: dict[str, list[str]]
    slide_columns: list[str]


def write_cohort_flow(root: Path, flow: CohortFlow) -> None:
    """Write the counts into the results folder."""
    data = dataclasses.asdict(flow)
    for stage in data["stages"]:
        stage["in"] = stage.pop("came_in")
    write_json(root / FILE, data)


def read_cohort_flow(root: Path) -> CohortFlow:
    """Read the counts of a results folder.

    Raises:
        ArtifactError: they are missing or damaged.
    """
    data = read_json(root / FILE)
    stages = data.get("stages") if isinstance(data, dict) else None
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(stage, dict) and "in" in stage:
            stage["came_in"] = stage.pop("in")
    return typed(data, CohortFlow, root / FILE)
