"""One full run of the tiny cohort for all workflow tests."""

from __future__ import annotations

import subprocess
import sys

import pytest
from house import TINY, House


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> House:
    """The tiny cohort, run from start to report in processes of its own."""
    house = House.build(tmp_path_factory.mktemp("house") / "run", TINY)
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--show-failed-logs"]
    done = subprocess.run(
        command, cwd=house.path, env=house.environment(), text=True, capture_output=True
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return house


@pytest.fixture
def house(finished: House, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A copy of the finished run, to change and plan again."""
    return finished.copy(tmp_path_factory.mktemp("copy") / "run")
