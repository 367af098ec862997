"""A results folder as mapping and folds leave it: 24 cases, two teachers, two folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.contracts.folds_summary import FoldsSummary, write_folds_summary
from pipeline.files.parquet import write_columns

CASES = [f"case{i:02d}" for i in range(24)]
DIMS = {"deep": {"low": 5, "mid": 6, "high": 8}, "flat": {"high": 4}}
LACKS_FLAT = {"case03", "case10"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return results_folder(tmp_path)


def results_folder(tmp_path: Path) -> Path:
    """What this module's first line says, in an empty folder."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=24)
    mapping: dict[str, dict[str, list[str]]] = {}
    rows: dict[str, list[str]] = {"slide_id": [], "case_id": [], "teacher": [], "path": []}
    for i, case in enumerate(CASES):
        for teacher, dims in DIMS.items():
            if teacher == "flat" and case in LACKS_FLAT:
                continue
            for s in range(1 + (i % 6 == 0)):
                name = f"features/{teacher}/{case}-{s}.h5"
                n = 1 if teacher == "flat" else int(rng.integers(3, 12))
                _features(tmp_path / name, dims, n, hidden[i], teacher == "deep", rng)
                mapping.setdefault(case, {}).setdefault(teacher, []).append(name)
                for key, value in zip(rows, (f"{case}-{s}", case, teacher, name), strict=True):
                    rows[key].append(value)
    teachers = {t: {"dims": d} for t, d in DIMS.items()}
    (tmp_path / "case_to_features.json").write_text(
        json.dumps({"teachers": teachers, "cases": mapping})
    )
    write_columns(tmp_path / "coverage.parquet", rows)
    write_columns(
        tmp_path / "cases.parquet",
        {
            "case_id": CASES,
            "time": np.exp(2 - hidden + 0.2 * rng.normal(size=24)),
            "event": (np.arange(24) % 4 > 0).astype(np.float64),
            "kind": ["xyz"[i % 3] for i in range(24)],
            "score": hidden * 3 + 10,
        },
    )
    for task in ("time", "kind", "score"):
        write_folds(tmp_path, task)
    return tmp_path


def write_folds(root: Path, task: str) -> None:
    """Two folds whose test parts partition the cases."""
    folder = root / "folds" / task
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(2):
        parts = {c: "test" if i % 2 == k else "val" if i % 7 < 2 else "train" for i, c in _all()}
        lines = [f"{case},{part}" for case, part in parts.items()]
        (folder / f"fold_{k}.csv").write_text("\n".join(["case_id,split", *lines]) + "\n")
        learned = [case for case, part in parts.items() if part != "test"]
        dealt = [f"{case},{i // 2 % 3}" for i, case in enumerate(learned)]
        (folder / f"inner_{k}.csv").write_text("\n".join(["case_id,part", *dealt]) + "\n")
    write_folds_summary(root, folds_summary(task, inner=3))


def folds_summary(task: str, **changes: Any) -> FoldsSummary:
    """Two folds that partition the cases; what they hold is left out."""
    known: dict[str, Any] = {
        "type": "any",
        "k": 2,
        "labelled": "test",
        "tests": "partition",
        "seed": 0,
        "group_by": "case",
        "inner": None,
        "mode": "intersection",
        "source": "made",
        "n_cases": len(CASES),
        "n_groups": len(CASES),
        "excluded": {},
        "folds": [],
        "files": [],
    }
    return FoldsSummary(task=task, **{**known, **changes})


def _all() -> list[tuple[int, str]]:
    return list(enumerate(CASES))


def _features(
    path: Path, dims: dict[str, int], n: int, hidden: float, coords: bool, rng: np.random.Generator
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for level, dim in dims.items():
            x = rng.normal(size=(n, dim))
            x[:, 0] += 2 * hidden
            file["features" if level == "high" else level] = x.astype(np.float16)
        if coords:
            file["coords"] = rng.integers(0, 999, (n, 2)).astype(np.int32)
        file.attrs["fingerprint"] = "x"
