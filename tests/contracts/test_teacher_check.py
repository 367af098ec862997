"""What a teacher's preflight found reaches its readers as it was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from pipeline.contracts.teacher_check import (
    TeacherCheck,
    path_of,
    read_teacher_check,
    write_teacher_check,
)
from pipeline.errors import ArtifactError
from pipeline.files.artifacts import read_json, write_json


def teacher_check(teacher: str, **changes: Any) -> TeacherCheck:
    """A network with random weights, but for what is given."""
    known: dict[str, Any] = {
        "dims": {"low": 10, "mid": 10, "high": 30},
        "pooling": "model",
        "gflop_per_tile": 2.0,
        "parameters": 1000,
        "transform": "resize 224",
        "weights": "random",
        "revision": "seed 1",
        "identity": "",
        "verified": ["output"],
    }
    return TeacherCheck(teacher=teacher, **{**known, **changes})


def test_a_check_is_read_as_it_was_written(tmp_path: Path) -> None:
    check = teacher_check("t", sha256="ab", sha256_expected=False)
    write_teacher_check(path_of(tmp_path, "t"), check)
    assert read_teacher_check(tmp_path, "t") == check
    data = read_json(path_of(tmp_path, "t"))
    absent = {"model", "licence", "prefix_tokens", "patch"}
    assert set(data) == {f.name for f in dataclasses.fields(TeacherCheck)} - absent
    assert read_teacher_check(tmp_path, "other") is None
    write_json(path_of(tmp_path, "t"), {**data, "dims": 30})
    with pytest.raises(ArtifactError, match=r"check\.json: dims"):
        read_teacher_check(tmp_path, "t")
