"""A disk that is full, over its quota or read-only: the job fails, says so, and goes on later.

One that knows no file locks is as good as any other.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import stages
from tests.faults.compare import contents, differences, finished_pieces
from tests.faults.stages import (
    LOCK,
    MKDIR,
    OPEN_WRITE,
    RENAME,
    SYNC,
    WRITE,
    Cohort,
    Ended,
    Fault,
    Warm,
)

WRITING = ("cohort_chunk", "tiling", "extraction", "mapping", "training", "report")
KEEPS = OPEN_WRITE | WRITE | SYNC
TAKES = OPEN_WRITE | MKDIR | RENAME


def fails_and_goes_on(
    warm: Warm, cohort: Cohort, stage: str, calls: int, error: int, words: str, at: int | None
) -> Ended:
    """The stage ends with a message and no traceback; the same command later ends well."""
    argv = stages.everything(cohort.path)[stage]
    expected = contents(cohort.path)
    cohort.undo(stage)
    if at is None:
        number = warm.run(argv, cohort.path, Fault(calls, cohort.path)).calls
        at = random.Random(f"{stage}/{error}").randint(1, number)
        cohort.undo(stage)
    fault = Fault(calls, cohort.path, error, at, lasting=True)
    failed = warm.run(argv, cohort.path, fault)
    assert failed.code == 1, failed.said
    assert "Traceback" not in failed.said
    assert words in failed.said and "the same command again" in failed.said
    kept = finished_pieces(cohort.path)
    cohort.forget_attempts()
    assert warm.run(argv, cohort.path).code == 0
    assert differences(expected, contents(cohort.path)) == []
    assert kept.items() <= finished_pieces(cohort.path).items(), "made again"
    return failed


@pytest.mark.parametrize("stage", WRITING)
def test_a_disk_that_fills_up(warm: Warm, cohort: Cohort, stage: str) -> None:
    fails_and_goes_on(warm, cohort, stage, KEEPS, errno.ENOSPC, "the disk is full", None)


@pytest.mark.slow
@pytest.mark.parametrize("stage", WRITING)
def test_a_quota_that_is_used_up(warm: Warm, cohort: Cohort, stage: str) -> None:
    fails_and_goes_on(warm, cohort, stage, KEEPS, errno.EDQUOT, "the quota is used up", None)


@pytest.mark.slow
@pytest.mark.parametrize("stage", WRITING)
def test_results_that_are_read_only(warm: Warm, cohort: Cohort, stage: str) -> None:
    fails_and_goes_on(warm, cohort, stage, TAKES, errno.EROFS, "the folder is read-only", 1)


@pytest.mark.parametrize("stage", ["tiling", "extraction", "training"])
def test_a_disk_without_locks(warm: Warm, cohort: Cohort, stage: str) -> None:
    argv = stages.everything(cohort.path)[stage]
    expected = contents(cohort.path)
    cohort.undo(stage)
    ended = warm.run(argv, cohort.path, Fault(LOCK, cohort.path, errno.ENOLCK, 1, lasting=True))
    assert ended.code == 0, ended.said
    assert differences(expected, contents(cohort.path)) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full(warm: Warm, cohort: Cohort, small_disk: Path) -> None:
    """The features lie on a small disk that something else fills."""
    argv = stages.everything(cohort.path)["extraction"]
    expected = contents(cohort.path)
    cohort.undo("extraction")
    features = cohort.results / "features"
    shutil.move(features, small_disk / "features")
    features.symlink_to(small_disk / "features")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        file.write(bytes(free - 20_000))
    failed = warm.run(argv, cohort.path)
    assert (failed.code, "the disk is full" in failed.said) == (1, True), failed.said
    assert not list(features.rglob("manifest/0.json")) and not list(features.rglob("*.tmp*"))
    ballast.unlink()
    again = warm.run(argv, cohort.path)
    assert again.code == 0, again.said
    features.unlink()
    stages.copy(small_disk / "features", features)
    assert differences(expected, contents(cohort.path)) == []
