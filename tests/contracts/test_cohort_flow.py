"""The counts of a cohort reach their readers as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.cohort_flow import (
    CaseCounts,
    CohortFlow,
    SlideCounts,
    StageCounts,
    TeacherCounts,
    read_cohort_flow,
    write_cohort_flow,
)
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json, write_json


def test_counts_are_read_as_they_were_written(tmp_path: Path) -> None:
    flow = CohortFlow(
        mode="union",
        slides=SlideCounts(4, 3, 2),
        cases=CaseCounts(3, 2, 1, 2),
        lost={"no_tissue": 1},
        warned=1,
        stages=[StageCounts("tiling", 4, 3, 1, 0, 0, 0, {"no_tissue": 1})],
        teachers={"a": TeacherCounts(3, 2, 50, {"high": 8})},
        incomplete_cases={"c": ["b"]},
        slide_columns=[],
    )
    write_cohort_flow(tmp_path, flow)
    assert read_cohort_flow(tmp_path) == flow
    data = read_json(tmp_path / "cohort_flow.json")
    assert data["stages"][0]["in"] == 4 and "came_in" not in data["stages"][0]
    write_json(tmp_path / "cohort_flow.json", {**data, "stages": [{"stage": "tiling"}]})
    with pytest.raises(ArtifactError, match=r"cohort_flow\.json: stages\.0\.came_in"):
        read_cohort_flow(tmp_path)
    write_json(tmp_path / "cohort_flow.json", [])
    with pytest.raises(ArtifactError, match=r"cohort_flow\.json"):
        read_cohort_flow(tmp_path)
