"""Slurm jobs that a killed Snakemake left behind.

They go on without it, and Snakemake's Slurm plugin does not find them again: started anew, it would
submit the same jobs a second time, with two writers for each file. So they are cancelled first.
What they had finished is kept: each slide's file is whole or absent, and recognised. Standard
library only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

# The plugin names all jobs of a run alike: an optional prefix, and a random UUID.
RUN_ID = re.compile(r"(?:.*_)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LOGS = Path(".snakemake/slurm_logs")  # made by the plugin at the first submission
WAIT_SECONDS = 60.0
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
