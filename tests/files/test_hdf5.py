"""HDF5 files are opened in one place, and never locked."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from pipeline.files import hdf5
from pipeline.runtime.machine_errors import is_machines, remedy

PACKAGE = Path(hdf5.__file__).parents[1]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Path]:
    """A file with the lock of a program that writes it."""
    path = tmp_path / "held.h5"
    with h5py.File(path, "w") as file:
        file["coords"] = [[1, 2]]
    with path.open("rb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield path


def test_a_file_that_another_program_holds_is_read(held: Path) -> None:
    with pytest.raises(BlockingIOError):
        h5py.File(held, "r")
    with hdf5.read_hdf5(held) as file:
        assert file["coords"][()].tolist() == [[1, 2]]


def test_who_holds_a_file_is_seen(held: Path, tmp_path: Path) -> None:
    assert hdf5.being_written(held)
    (tmp_path / "free.h5").write_bytes(b"x")
    assert not hdf5.being_written(tmp_path / "free.h5")
    assert not hdf5.being_written(tmp_path / "none.h5")


def test_a_lock_that_the_environment_asks_for_is_the_machines_failure(held: Path) -> None:
    code = (
        "import sys\nfrom pipeline.files.hdf5 import read_hdf5\n"
        "from pipeline.runtime.machine_errors import remedy\n"
        "try:\n    read_hdf5(sys.argv[1])\nexcept OSError as error:\n    print(remedy(error))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(held)],
        env=os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "HDF5_USE_FILE_LOCKING" in ended.stdout and "the same command again" in ended.stdout


@pytest.mark.parametrize("number", [11, 37, 38])
def test_any_failed_lock_is_the_machines(number: int) -> None:
    error = OSError(f"Unable to synchronously open file (unable to lock file, errno = {number})")
    assert is_machines(error)
    assert "HDF5_USE_FILE_LOCKING" in str(remedy(error))


def test_no_other_module_opens_hdf5_itself() -> None:
    opens = re.compile(r"h5py\.File\(")
    found = [p for p in PACKAGE.rglob("*.py") if opens.search(p.read_text())]
    assert found == [Path(hdf5.__file__)]
