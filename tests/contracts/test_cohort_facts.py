"""What is known of a cohort reaches its readers as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts.cohort_facts import (
    CohortCounts,
    CohortFacts,
    TaskCounts,
    read_cohort_facts,
    write_cohort_facts,
)
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json, write_json


def cohort_facts(**changes: Any) -> CohortFacts:
    """A cohort of nothing, but for what is given."""
    known: dict[str, Any] = {
        "name": "demo",
        "source": "synthetic",
        "counts": CohortCounts(0, 0, 0, 0, 0, 0),
        "slides_missing": [],
        "label_columns": [],
        "tasks": {},
        "oracle": {},
        "planted_faults": {},
    }
    return CohortFacts(**{**known, **changes})


def test_facts_are_read_as_they_were_written(tmp_path: Path) -> None:
    tasks = {
        "os": TaskCounts("survival", ["time", "event"], 9, 1, events=4),
        "grade": TaskCounts("classification", ["grade"], 10, 0, classes={"1": 6, "2": 4}),
    }
    facts = cohort_facts(tasks=tasks, oracle={"os": {"c_index": 0.9}})
    write_cohort_facts(tmp_path, facts)
    assert read_cohort_facts(tmp_path) == facts
    data = read_json(tmp_path / "cohort.json")
    assert "classes" not in data["tasks"]["os"] and data["tasks"]["os"]["events"] == 4
    write_json(tmp_path / "cohort.json", {**data, "counts": {**data["counts"], "slides": "many"}})
    with pytest.raises(ArtifactError, match=r"cohort\.json: counts\.slides"):
        read_cohort_facts(tmp_path)
