"""`kill -9` at any moment, then the same command again: it completes, and nothing is done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from house import TINY, House

COMMAND = (
    "--cores", "2", "--workflow-profile", "profiles/ci",
)  # fmt: skip


def start(house: House) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", *COMMAND],
        cwd=house.path,
        env=house.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def finished_slides(house: House) -> dict[Path, int]:
    results = house.path / "results" / "tiny"
    found = [*results.glob("tiles/*.h5"), *results.glob("features/*/*.h5")]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
def test_killed_runs_complete_and_keep_what_was_finished(finished: House, tmp_path: Path) -> None:
    house = House.build(tmp_path / "run", TINY)
    kept: dict[Path, int] = {}
    schedule = random.Random(3)
    for _ in range(4):
        process = start(house)
        time.sleep(schedule.uniform(4, 15))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = finished_slides(house)
        redone = [p for p, at in kept.items() if now.get(p) != at]
        assert not redone, f"computed again: {redone}"
        kept = now
    done = house.run(*COMMAND)
    assert "LockException" not in done.stderr
    redone = [p for p, at in kept.items() if finished_slides(house)[p] != at]
    assert not redone, f"computed again: {redone}"
    assert house.planned() == {}
    for file in ("tiles/manifest/0.json", "tiles/manifest/1.json", "cohort_flow.json"):
        undisturbed = finished.path / "results" / "tiny" / file
        assert (house.path / "results" / "tiny" / file).read_bytes() == undisturbed.read_bytes()


@pytest.mark.slow
def test_a_job_that_outlives_its_snakemake_is_ended_before_the_next_one(tmp_path: Path) -> None:
    house = House.build(tmp_path / "run", TINY)
    process = start(house)
    while process.poll() is None and not (orphan := job_of(process.pid)):
        time.sleep(0.2)
    process.kill()
    process.wait()
    assert Path(f"/proc/{orphan}").exists(), "it goes on without its Snakemake"
    done = house.run(*COMMAND, "results/tiny/slides.parquet")
    assert "processes that a killed run left here" in done.stderr and str(orphan) in done.stderr
    assert not (Path(f"/proc/{orphan}/environ").exists() and environment_of(orphan))


def environment_of(pid: int) -> bytes:
    """Empty for a process that has ended and whose parent has not asked yet."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def job_of(snakemake: int) -> int:
    """A job's shell that this Snakemake has started; 0 before there is one."""
    children = Path(f"/proc/{snakemake}/task").glob("*/children")
    found = [int(pid) for file in children for pid in file.read_text().split()]
    shells = (p for p in found if b"-m pipeline" in Path(f"/proc/{p}/cmdline").read_bytes())
    return next(shells, 0)
