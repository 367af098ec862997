"""The one place that opens HDF5 files: never with a lock.

HDF5 locks what it opens, also for reading. On a disk without locks (many network file systems) that
fails, and a file that another program holds for a moment would look damaged. A lock protects
nothing here: readers see whole files, since writers rename theirs into place, and each writer has
a temporary file of its own. The environment variable HDF5_USE_FILE_LOCKING overrides this, and
`pipeline.runtime.machine_errors` names it where a lock fails after all.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py


def read_hdf5(path: str | Path) -> h5py.File:
    """An HDF5 file open for reading; to be used in a `with`.

    Raises:
        OSError: it is missing, no HDF5, or the disk does not answer.
    """
    import h5py

    return h5py.File(path, "r", locking=False)


def write_hdf5(path: str | Path, libver: str | None = None) -> h5py.File:
    """A new HDF5 file open for writing; to be used in a `with`.

    Args:
        path: a temporary file that nobody else knows.
        libver: the oldest HDF5 that need not read it; None: every one can.

    Raises:
        OSError: the disk is full or does not answer.
    """
    import h5py

    return h5py.File(path, "w", libver=libver, locking=False)


def being_written(path: str | Path) -> bool:
    """Whether another program holds the lock that HDF5 takes for writing.

    False where that cannot be known: the file is gone, or its disk knows no locks.
    """
    try:
        with Path(path).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False
