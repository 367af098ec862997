"""One Snakemake per results folder, and the way back after it was killed.

Snakemake's lock lies in the working folder. It outlives a `kill -9`, and the next call then refuses
to start until somebody says `--unlock`; it goes when any Snakemake of that folder ends, whatever
cohort that one worked on; and two working folders with one results folder do not see each other's.
So each running Snakemake leaves a note in the results folder. The next one refuses while the owner
of a note lives. When it is dead, what it left in Slurm's queue or running on this machine is ended
first, or the same jobs would run twice, and then its lock is removed. An owner on another machine
cannot be asked and counts as living.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.runtime import orphans
from pipeline.runtime.stages import TABLES

NOTES = ".controllers"
_KEYS = {"host", "space", "pid", "started", "folder"}


def claim(results: Path, state: Path) -> bool:
    """Note this process as the controller of a results folder.

    Args:
        results: the cohort's results folder.
        state: the `.snakemake` folder of the working directory.

    Returns:
        Whether a dead controller's lock was removed.

    Raises:
        UserError: another Snakemake works on these results, or may.
        OSError: the results cannot be written.
    """
    notes = results / NOTES
    notes.mkdir(parents=True, exist_ok=True)
    own = _identity(os.getpid())
    path = notes / f"{own['host']}-{own['pid']}.json"
    # First the note, then the look at others: of two that start at once, both see the other.
    _write(path, own)
    dead = {}
    marks = []
    for other in sorted(notes.glob("*.json")):
        if other == path:
            continue
        owner = _read(other)
        if owner is not None and _lives(owner):
            path.unlink(missing_ok=True)
            raise UserError(_taken(results, other, owner))
        dead[other] = str(owner["folder"]) if owner else str(Path.cwd())
        if owner is not None:
            marks.append(orphans.mark(owner["pid"], owner["started"]))
    atexit.register(_leave, path, os.getpid())
    orphans.mark_children(orphans.mark(own["pid"], own["started"]))
    for left in marks:
        if not orphans.end_processes(left):
            raise UserError(
                f"{results}: processes that a killed run left here do not end; see the line above"
            )
    for folder in sorted(set(dead.values())):
        _cancel(results, Path(folder))
    for note in dead:
        note.unlink(missing_ok=True)
    return bool(dead) and _unlock(results, state)


def _cancel(results: Path, folder: Path) -> None:
    """Cancel what a dead controller left in Slurm's queue.

    Slurm's queue tells working folders apart, but not which cohort a job is of, so that this waits
    for the end of a Snakemake that works on another cohort of the same folder.

    Raises:
        UserError: it cannot be cancelled now.
    """
    if (folder / orphans.LOGS).is_dir():
        for note in sorted(results.absolute().parent.glob(f"*/{NOTES}/*.json")):
            owner = _read(note)
            others = note.parent.parent != results.absolute()
            if others and owner and owner["folder"] == str(folder) and _lives(owner):
                raise UserError(
                    f"{results}: a killed run may have left jobs in Slurm's queue, and process "
                    f"{owner['pid']} works on another cohort of this folder. Give the command "
                    f"again when it has ended"
                )
    if not orphans.cancel(folder):
        raise UserError(
            f"{results}: the jobs that a killed run left in Slurm's queue cannot be cancelled now; "
            f"give the command again later"
        )


def forget_unknown(results: Path, state: Path) -> list[Path]:
    """Remove every stage's tables from results that Snakemake has no record of.

    Without its records (`.snakemake` was lost, or the results came from elsewhere) Snakemake takes
    results for good whatever config and code made them, and asks for a missing file only where a
    job that runs needs it. So the tables of all stages go; the stages know their finished slides
    and trainings by fingerprints of their own. A teacher's check stays: it holds its revision.

    Args:
        results: the cohort's results folder, as Snakemake names it.
        state: the `.snakemake` folder of the working directory.

    Returns:
        What was removed.
    """
    tables = unknown_tables(results, state)
    for table in tables:
        table.unlink(missing_ok=True)
    return tables


def unknown_tables(results: Path, state: Path) -> list[Path]:
    """All stages' tables, if Snakemake has no record of anything in these results."""
    records = state / "metadata"
    tables = sorted(path for pattern in TABLES for path in results.glob(pattern))
    if not tables or any(state.glob("*.db*")) or any(_about(results, _names(records))):
        return []
    return tables


def _names(records: Path) -> Iterable[str]:
    """The files that Snakemake's records speak of. Long names lie in nested folders."""
    for path in records.rglob("*"):
        if path.is_file():
            name = "".join(part.lstrip("@") for part in path.relative_to(records).parts)
            with contextlib.suppress(ValueError):
                yield base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()


def _about(results: Path, names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if Path(name).is_relative_to(results))


def _taken(results: Path, note: Path, owner: dict[str, Any]) -> str:
    return (
        f"{results}: another Snakemake works on it, process {owner['pid']} on {owner['host']}, "
        f"started in {owner['folder']}. Wait for its end, or stop it. If it no longer runs there, "
        f"delete {note} and give the command again"
    )


def _unlock(results: Path, state: Path) -> bool:
    """Remove the locks that speak of these results; those of other cohorts are not ours."""
    removed = False
    for lock in (state / "locks").glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            if any(_about(results, lock.read_text().splitlines())):
                lock.unlink()
                removed = True
    return removed


def _leave(note: Path, pid: int) -> None:
    """Take the note away at the end; a forked child is not the one that it speaks of."""
    if os.getpid() == pid:
        with contextlib.suppress(OSError):
            note.unlink(missing_ok=True)


def _write(note: Path, owner: dict[str, Any]) -> None:
    temporary = note.with_suffix(".tmp")
    temporary.write_text(json.dumps(owner))
    temporary.replace(note)


def _read(note: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads(note.read_text())
        return owner if set(owner) >= _KEYS else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _identity(pid: int) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "space": _space(),
        "pid": pid,
        "started": _started(pid),
        "folder": str(Path.cwd()),
    }


def _space() -> str:
    """Containers of one machine may share its name and yet not see each other's processes."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _lives(owner: dict[str, Any]) -> bool:
    """A process that cannot be asked from here counts as living."""
    if (owner["host"], owner["space"]) != (socket.gethostname(), _space()):
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
