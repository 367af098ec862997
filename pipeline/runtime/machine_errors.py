"""Failures of the machine: told apart from a slide's and the user's, and said with their remedy.

A full disk or an unplugged path must never become a slide's row in the ledger: a manifest is final,
and the slide would stay lost after the disk is back. So what reads slides asks `is_machines` before
it blames one, and the command line shows `remedy` in place of a traceback. Standard library only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from pipeline.errors import MachineError

AGAIN = "then give the same command again: what is finished is kept"

_DISK = (
    "make room (`python -m pipeline plan` says what a run needs; feature files of a teacher that "
    "left the config can go)"
)
_PATH = "the disk or network path does not answer; look at its mount and its cables"
_HANDLES = "too many open files; raise `ulimit -n`, or use fewer threads"
_MEMORY = (
    "out of memory; give the job more (`mem_mb` in the profile), or fewer threads and a smaller "
    "extraction.batch_size or training.batch_size"
)
_LOCKS = (
    "this disk knows no file locks, or another program holds one; this pipeline asks HDF5 for none "
    "unless the environment variable HDF5_USE_FILE_LOCKING says so: set it to FALSE"
)
_READ_ONLY = "the folder is read-only here; mount it for writing, or run where it is"

# Errors of the operating system that say nothing of the file's content.
_REMEDIES = {
    errno.ENOSPC: f"the disk is full; {_DISK}",
    errno.EDQUOT: f"the quota is used up; {_DISK}",
    errno.EROFS: _READ_ONLY,
    errno.EIO: _PATH,
    errno.ESTALE: _PATH,
    errno.ENXIO: _PATH,
    errno.ENODEV: _PATH,
    errno.ENOTCONN: _PATH,
    errno.ETIMEDOUT: _PATH,
    errno.EHOSTDOWN: _PATH,
    errno.EHOSTUNREACH: _PATH,
    errno.EREMOTEIO: _PATH,
    errno.ESHUTDOWN: _PATH,
    errno.EMFILE: _HANDLES,
    errno.ENFILE: _HANDLES,
    errno.ENOMEM: _MEMORY,
    errno.ENOLCK: _LOCKS,
}
# Of a slide these are its own failure; of the results they have a remedy too.
_OF_RESULTS = {
    errno.EACCES: "no right to write there; ask for it, or work in a folder of your own",
    errno.EPERM: "no right to write there; ask for it, or work in a folder of your own",
}


def is_machines(error: BaseException) -> bool:
    """Whether the machine failed, rather than the data: looks along the causes as well."""
    return any(_known(one, _REMEDIES) is not None for one in _causes(error))


def remedy(error: BaseException) -> str | None:
    """What failed and what to do, in one line; None for an error that is not the machine's."""
    for one in _causes(error):
        if isinstance(one, MachineError):
            return f"{one}; {AGAIN}"
        known = _known(one, _REMEDIES | _OF_RESULTS)
        if known is not None:
            said = " ".join(str(one).split()) or type(one).__name__
            return f"{said}: {known}; {AGAIN}"
    return None


def _known(error: BaseException, remedies: dict[int, str]) -> str | None:
    if isinstance(error, MachineError):
        return str(error)
    # torch has its own class for a GPU's memory, which is not to be imported here.
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return _MEMORY
    if isinstance(error, OSError) and error.errno in remedies:
        return remedies[error.errno]
    # Libraries that are not Python's own hand on the system's words without its number.
    text = str(error)
    if any(words in text for words in _SHORT):
        return _MEMORY
    if _UNLOCKABLE in text:
        return _LOCKS
    for number, what in remedies.items():
        if number in _QUOTED and os.strerror(number) in text:
            return what
    return None


# How libraries say that memory is short, besides Python's own MemoryError.
_SHORT = ("can't allocate memory", "Cannot allocate memory", "Insufficient memory", "bad_alloc")
# HDF5 hands on the number of what the lock met: none known (ENOLCK, ENOSYS), or held (EAGAIN).
_UNLOCKABLE = "unable to lock file"
_QUOTED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__
