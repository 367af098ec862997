"""`cohort.json`: what is known of a cohort before any slide is read.

Written by the cohort stage; read by evaluation and the report.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.files.artifacts import write_json
from pipeline.files.typed_json import read_typed

FILE = "cohort.json"


@dataclasses.dataclass(frozen=True)
class CohortCounts:
    """Of the sheet.

    Attributes:
        slides, cases, sites: different ones.
        cases_with_several_slides: of the cases.
        slides_without_path: whose features are imported, for one.
        slides_missing: whose file is not there.
    """

    slides: int
    cases: int
    sites: int
    cases_with_several_slides: int
    slides_without_path: int
    slides_missing: int


@dataclasses.dataclass(frozen=True)
class TaskCounts:
    """Of a task's labels.

    Attributes:
        type: of the task.
        columns: of the sheet, that it reads.
        cases, cases_without_label: with and without a label.
        events: of a survival task; None, and not in the file, for others.
        classes: class -> cases, of a classification; None, and not in the file, for others.
    """

    type: str
    columns: list[str]
    cases: int
    cases_without_label: int
    events: int | None = None
    classes: dict[str, int] | None = None


@dataclasses.dataclass(frozen=True)
class CohortFacts:
    """A cohort.

    Attributes:
        name, source: as in the config.
        counts: of the sheet.
        slides_missing: some slides whose file is not there.
        label_columns: columns of the sheet with labels.
        tasks: task -> counts of its labels.
        oracle: task -> metric -> what the hidden state of an embedded cohort allows.
        planted_faults: slide of an embedded cohort -> what was broken on purpose.
    """

    name: str
    source: str
    counts: CohortCounts
    slides_missing: list[str]
    label_columns: list[str]
    tasks: dict[str, TaskCounts]
    oracle: dict[str, dict[str, float]]
    planted_faults: dict[str, str]


def write_cohort_facts(root: Path, facts: CohortFacts) -> None:
    """Write the facts into the results folder."""
    data = dataclasses.asdict(facts)
    for name, task in data["tasks"].items():
        data["tasks"][name] = {key: value for key, value in task.items() if value is not None}
    write_json(root / FILE, data)


def read_cohort_facts(root: Path) -> CohortFacts:
    """Read the facts of a results folder.

    Raises:
        ArtifactError: they are missing or damaged.
    """
    return read_typed(root / FILE, CohortFacts)
