"""A small cohort of feature files: two teachers, three levels, one teacher missing for a case."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.contracts.case_map import CaseMap, TeacherLevels

SIZES = {"a": (4, 3), "b": (6,), "c": (5,)}  # tiles per slide of each case
DIMS = {"one": {"low": 3, "mid": 4, "high": 5}, "two": {"high": 2}}


@pytest.fixture
def mapping(tmp_path: Path) -> CaseMap:
    """The map of three cases, with its files under tmp_path."""
    rng = np.random.default_rng(0)
    cases: dict[str, dict[str, list[str]]] = {}
    for case, slides in SIZES.items():
        for teacher, dims in DIMS.items():
            if (case, teacher) == ("b", "two"):
                continue
            for i, n in enumerate(slides):
                path = f"features/{teacher}/{case}{i}.h5"
                (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
                with h5py.File(tmp_path / path, "w") as file:
                    for level, dim in dims.items():
                        name = "features" if level == "high" else level
                        file[name] = rng.normal(size=(n, dim)).astype(np.float16)
                    file["coords"] = rng.integers(0, 999, (n, 2)).astype(np.int32)
                    file.attrs["fingerprint"] = "x"
                cases.setdefault(case, {}).setdefault(teacher, []).append(path)
    return CaseMap({t: TeacherLevels(dict(d)) for t, d in DIMS.items()}, cases)
