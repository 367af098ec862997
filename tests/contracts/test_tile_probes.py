"""What the probes of tiles found reaches the report as it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.contracts.tile_probes import (
    Comparison,
    ModelRow,
    ProbeRow,
    TeacherProbes,
    TileStudents,
    read_teacher_probes,
    read_tile_students,
    write_teacher_probes,
    write_tile_students,
)
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json, write_json

ROW = ProbeRow("logistic", "all", "auc", 0.9, None, None, 0.02, 80, 100)


def test_a_teachers_probes_are_read_as_they_were_written(tmp_path: Path) -> None:
    whole = TeacherProbes("a", "high", "", [ROW], {"fat": 2, "tumour": 3}, 5, 2, 2, {"knn": [[1]]})
    silent = TeacherProbes("b", "high", "no tile has a class", [])
    for probes in (whole, silent):
        write_teacher_probes(tmp_path, probes)
        assert read_teacher_probes(tmp_path, probes.teacher) == probes
    path = tmp_path / "probing/b.json"
    assert set(read_json(path)) == {"teacher", "level", "reason", "rows"}
    write_json(path, {"teacher": "b"})
    with pytest.raises(ArtifactError, match=r"b\.json: level"):
        read_teacher_probes(tmp_path, "b")


def test_students_are_read_as_they_were_written(tmp_path: Path) -> None:
    row = ModelRow("shazam_v1", "student", "auc", 0.9, 0.8, 1.0, 0.02, 80, 100, 1234)
    pair = Comparison("shazam_v1", "a", "balanced_accuracy", 0.1, -0.1, 0.3, 0.2)
    students = TileStudents("", ["c"], [row], [pair], {"fat": 2}, 5, 2, 2, ["a", "b"])
    write_tile_students(tmp_path, students)
    assert read_tile_students(tmp_path) == students
