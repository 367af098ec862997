"""The library of faults, the process that runs stages with it, and a finished cohort."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import stages
from tests.faults.stages import Cohort, Warm


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Runs stages, with faults where they are asked for."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the library that makes system calls fail")
    folder = tmp_path_factory.mktemp("warm")
    library = folder / "faults.so"
    source = Path(stages.__file__).with_name("faults.c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    running = Warm(folder, library)
    yield running
    running.close()


@pytest.fixture(scope="session")
def finished(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """A cohort that ran undisturbed, with all its results. Not to be changed."""
    return stages.build(warm, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def cohort(finished: Cohort, tmp_path: Path) -> Cohort:
    """A copy of the finished cohort, to damage."""
    return finished.copy(tmp_path / "run")
