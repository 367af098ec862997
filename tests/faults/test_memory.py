"""A job that needs more memory than it may have: it fails, says so, and blames no slide."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import MachineError, SlideError
from pipeline.runtime.machine_errors import is_machines, remedy
from tests.faults import stages
from tests.faults.compare import contents, differences
from tests.faults.stages import KILL, OPEN_WRITE, Cohort, Fault, Warm

MIB = 2**20


def test_a_worker_that_the_kernel_kills_costs_no_slide(warm: Warm, cohort: Cohort) -> None:
    """The pool is broken then; its slides are tiled one by one, which takes less memory."""
    argv = stages.everything(cohort.path)["tiling"]
    expected = contents(cohort.path)
    cohort.undo("tiling")
    tiles = cohort.results / "tiles"
    ended = warm.run(argv, cohort.path, Fault(OPEN_WRITE, tiles, KILL, at=2))
    assert (ended.code, ended.lingering) == (0, False), ended.said
    wrong = [line for line in differences(expected, contents(cohort.path)) if ".tmp" not in line]
    assert wrong == []


def test_no_worker_outlives_its_stage(warm: Warm, cohort: Cohort) -> None:
    """Killed alone, as by a person or the kernel, the stage takes its idle workers with it."""
    argv = [*stages.everything(cohort.path)["tiling"], "--workers", "2"]
    cohort.undo("tiling")
    # The records of attempts are the stage's own writing, before its workers begin.
    ended = warm.run(argv, cohort.path, Fault(OPEN_WRITE, cohort.results / "jobs", KILL, at=2))
    if ended.code == 0:
        pytest.fail("the stage was not killed")
    assert ended.lingering is False


@pytest.mark.slow
def test_too_small_an_address_space(warm: Warm, cohort: Cohort) -> None:
    """The limit is found by doubling: below some size the stage says that memory is short."""
    argv = stages.everything(cohort.path)["extraction"]
    expected = contents(cohort.path)
    cohort.undo("extraction")
    said = []
    for limit in (900, 1200, 1500, 1800, 2100, 2400):
        done = limited([*argv, "--workers", "1"], cohort.path, limit)
        said.append(done.stderr)
        manifest = cohort.results / "features" / "tiny" / "manifest" / "0.json"
        if done.returncode == 0:
            break
        assert not manifest.exists(), "a manifest is final"
    assert warm.run(argv, cohort.path).code == 0
    assert differences(expected, contents(cohort.path)) == []
    assert len(said) > 1, "the smallest limit was no limit"


def limited(argv: list[str], cwd: Path, mib: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mib * MIB, mib * MIB))

    command = [sys.executable, "-m", "pipeline", *argv]
    environment = {"PYTHONPATH": str(stages.REPOSITORY), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(
        command, cwd=cwd, env=environment, preexec_fn=limit, text=True, capture_output=True
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"),
        OSError(12, "Cannot allocate memory"),
        MachineError("out of memory"),
    ],
)
def test_want_of_memory_is_the_machines(error: Exception) -> None:
    assert is_machines(error)
    assert "memory" in (remedy(error) or "") and "the same command again" in (remedy(error) or "")


def test_it_is_found_behind_the_error_that_it_caused() -> None:
    try:
        try:
            raise OSError(5, "Input/output error")
        except OSError as error:
            raise SlideError("cannot be decoded", "unreadable") from error
    except SlideError as error:
        assert is_machines(error)
    assert not is_machines(SlideError("cannot be decoded", "unreadable"))
    assert remedy(ValueError("odd")) is None
