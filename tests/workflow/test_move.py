"""A cohort can move: to another folder, without Snakemake's records, and through a plain copy."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from house import House

EXPENSIVE = ("tiles/*.h5", "features/*/*.h5", "models/*/*/fold_*/seed_*/weights.safetensors")


def expensive(house: House) -> dict[str, int]:
    results = house.path / "results" / "tiny"
    found = [path for pattern in EXPENSIVE for path in results.glob(pattern)]
    return {p.relative_to(results).as_posix(): p.stat().st_mtime_ns for p in found}


def test_with_snakemakes_records_nothing_runs(house: House, tmp_path: Path) -> None:
    moved = House(tmp_path / "elsewhere" / "deep")
    moved.path.parent.mkdir()
    shutil.move(house.path, moved.path)
    assert moved.planned() == {}


@pytest.mark.slow
def test_without_them_finished_slides_and_trainings_are_recognised(
    house: House, tmp_path: Path
) -> None:
    """Only our own fingerprints are left to know them by, and the times say the wrong thing."""
    moved = House(tmp_path / "elsewhere")
    shutil.move(house.path, moved.path)
    shutil.rmtree(moved.path / ".snakemake")
    manifests = sorted((moved.path / "results" / "tiny").rglob("manifest/*.json"))
    assert manifests
    # A copy without times: what is made from something may now look older than it.
    now = time.time()
    for path in (moved.path / "results").rglob("*.json"):
        os.utime(path, (now, now))
    for path in (moved.path / "results" / "tiny" / "slides").glob("*.parquet"):
        os.utime(path, (now + 1, now + 1))
    before = expensive(moved)
    assert moved.planned(), "the times make Snakemake look at every stage again"
    moved.run("--cores", "2")
    assert expensive(moved) == before
    assert moved.planned() == {}
