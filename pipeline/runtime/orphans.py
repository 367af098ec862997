"""Jobs that a killed Snakemake left behind, in Slurm's queue and on this machine.

They go on without it, and Snakemake does not find them again: a new run would start the same
jobs a second time, with two writers for each file. So they are ended first. What they had finished
is kept: each slide's file is whole or absent, and recognised. Standard library only.

Processes on this machine are known by a mark that their environment has from the Snakemake that
started them, with its process number and its start, so that no other process is ever touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

# The plugin names all jobs of a run alike: an optional prefix, and a random UUID.
RUN_ID = re.compile(r"(?:.*_)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOGS = Path(".snakemake/slurm_logs")  # made by the plugin at the first submission
MARK = "SHAZAM_CONTROLLER"
WAIT_SECONDS = 60.0
TERM_SECONDS = 10.0  # until a process that was asked to end is made to
ASK_SECONDS = 60.0


def cancel(folder: Path) -> bool:
    """Cancel this user's Snakemake jobs of a working folder, and wait until they have ended.

    Args:
        folder: the working folder that the jobs were submitted from.

    Returns:
        whether none is left. A folder from which nothing was ever submitted has none.
    """
    if not (folder / LOGS).is_dir():
        return True
    left = _jobs(folder)
    if left:
        _say(f"cancelling {len(left)} Slurm jobs that a killed run left: {', '.join(left)}")
        subprocess.run(["scancel", *left], capture_output=True, timeout=ASK_SECONDS, check=False)
    deadline = time.monotonic() + WAIT_SECONDS
    while left and time.monotonic() < deadline:
        time.sleep(1)
        left = _jobs(folder)
    if left is None:
        _say("squeue does not answer, so a killed run's jobs may still run. Try again later")
    elif left:
        _say(f"jobs {', '.join(left)} have not ended yet; see squeue, and try again")
    return left == []


def mark(pid: int, started: str | None) -> str:
    """What marks the processes of a Snakemake; a process number alone is used again."""
    return f"{pid}-{started}"


def mark_children(own: str) -> None:
    """Mark every process that this one will start."""
    os.environ[MARK] = own


def end_processes(of: str) -> bool:
    """End the processes on this machine that a dead Snakemake left, and wait until they are gone.

    Args:
        of: the dead Snakemake's `mark`.

    Returns:
        whether none is left.
    """
    left = _marked(of)
    if left:
        numbers = ", ".join(map(str, left))
        _say(f"ending {len(left)} processes that a killed run left here: {numbers}")
    for order, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, WAIT_SECONDS)):
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, order)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = _marked(of)
    if left:
        _say(f"processes {', '.join(map(str, left))} have not ended yet; end them and try again")
    return not left


def _marked(of: str) -> list[int]:
    """Processes with that mark, without this one and those that it was started from.

    Those of other users cannot be looked into, and a zombie has no environment any more.
    """
    wanted = f"{MARK}={of}".encode()
    spared = _ancestors()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = wanted in (folder / "environ").read_bytes().split(b"\0")
            if marked and int(folder.name) not in spared:
                found.append(int(folder.name))
    return sorted(found)


def _ancestors() -> set[int]:
    found: set[int] = set()
    pid = os.getpid()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return found


def _jobs(folder: Path) -> list[str] | None:
    """Jobs of this user and folder that wait, run or are ending; None where Slurm is mute."""
    ask = ["squeue", "--noheader", f"--user={os.getuid()}", "--format=%i|%j|%Z"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=ASK_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.split("|", 2) for line in done.stdout.splitlines() if line.count("|") >= 2)
    here = folder.resolve()
    return [job for job, name, place in rows if RUN_ID.fullmatch(name) and _same(place, here)]


def _same(place: str, folder: Path) -> bool:
    return bool(place) and Path(place).resolve() == folder


def _say(text: str) -> None:
    print(f"shazam: {text}.", file=sys.stderr)
