"""One Snakemake per results folder, and the way back after it was killed.

Snakemake's lock outlives a `kill -9`, and the next call then refuses to start until somebody says
`--unlock`. Here the running Snakemake notes who it is; the next one removes a lock whose owner, on
this machine, no longer lives, and first cancels what that one left in Slurm's queue, or the same
jobs would run twice. A lock of a living process, or of another machine, is left alone.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from pipeline import leftovers

NOTE = "controller.json"


def take_over(folder: Path) -> bool:
    """Note this process as the folder's controller; remove the lock of a dead one.

    Args:
        folder: the `.snakemake` folder of the working directory.

    Returns:
        Whether a dead controller's lock was removed.
    """
    note = folder / NOTE
    owner = _read(note)
    if owner is not None and owner != _identity(os.getpid()) and _lives(owner):
        return False
    removed = False
    if owner is not None and owner["host"] == socket.gethostname():
        locks = list((folder / "locks").glob("*"))
        if locks and not leftovers.cancel(folder.absolute().parent):
            return False
        for lock in locks:
            lock.unlink(missing_ok=True)
            removed = True
    folder.mkdir(parents=True, exist_ok=True)
    temporary = note.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(_identity(os.getpid())))
    temporary.replace(note)
    return removed


def _read(note: Path) -> dict | None:
    try:
        owner = json.loads(note.read_text())
        return owner if {"host", "pid", "started"} <= set(owner) else None
    except (OSError, ValueError):
        return None


def _identity(pid: int) -> dict:
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _lives(owner: dict) -> bool:
    """A process of another machine counts as living: it cannot be asked from here."""
    if owner["host"] != socket.gethostname():
        return True
    started = _started(owner["pid"])
    return started is not None and started == owner["started"]


def _started(pid: int) -> str | None:
    """When the process began, in clock ticks since boot: a process number alone is used again."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state == "Z" else rest[18]
