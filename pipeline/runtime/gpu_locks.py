"""Distinct GPUs for jobs that share a machine.

Snakemake counts GPUs (`resources: gpu`) but does not say which one a job gets, so two jobs would
both take the first. Here a job claims free ones with a lock file per device: the kernel releases
the lock when the process ends, however it ends. A scheduler that has chosen the devices already is
left alone. Standard library only, and called before torch is imported.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from pipeline.errors import ConfigError

VISIBLE = "CUDA_VISIBLE_DEVICES"
SCHEDULERS = ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID", "JOB_ID", "KUBERNETES_SERVICE_HOST")
DEVICE_FILES = Path("/dev")
POLL_SECONDS = 0.5
SAY_EVERY = 30.0

_held: list[TextIO] = []  # open as long as the process lives: closing one would release it


def claim(count: int, environment: Mapping[str, str] | None = None) -> list[str]:
    """Claim GPUs of this machine until the process ends, waiting until enough are free.

    Sets `CUDA_VISIBLE_DEVICES` to them. Where a scheduler gave this job its own devices, and no
    more than it asked for, there is nothing to choose and nothing is touched; in a bigger
    allocation that several jobs share, one is chosen among those it holds.

    Args:
        count: how many; 0: use whatever is visible, as one who works alone would.
        environment: the process's by default.

    Returns:
        the names of the devices (indices or UUIDs), empty where nothing was claimed.

    Raises:
        ConfigError: the machine has fewer GPUs than asked for.
    """
    environment = os.environ if environment is None else environment
    if count < 1:
        return []
    scheduler = next((f"{s}-{environment[s]}" for s in SCHEDULERS if environment.get(s)), "")
    visible = visible_devices(environment)
    if scheduler and len(visible) <= count:
        return []
    if len(visible) < count:
        raise ConfigError(
            f"--gpus {count}: this machine shows {len(visible)} GPU(s)"
            + (f" ({VISIBLE}={environment[VISIBLE]})" if VISIBLE in environment else "")
            + "; use a profile that asks for no GPU, e.g. profiles/local, or check the driver"
        )
    taken = _wait(visible, count, _folder(scheduler))
    os.environ[VISIBLE] = ",".join(taken)
    # Numbers mean the same device in every process only in this order.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return taken


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may choose from: as the environment says, else all there are."""
    if VISIBLE in environment:
        return [name.strip() for name in environment[VISIBLE].split(",") if name.strip()]
    files = (re.fullmatch(r"nvidia(\d+)", path.name) for path in DEVICE_FILES.glob("nvidia*"))
    return [str(number) for number in sorted(int(found[1]) for found in files if found)]


def _folder(scheduler: str) -> Path:
    """Where the locks lie: one folder per user, and per allocation, whose numbers are its own."""
    base = Path(tempfile.gettempdir()) / f"shazam-gpus-{os.getuid()}"
    folder = base / re.sub(r"[^\w.-]", "_", scheduler or "machine")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _wait(visible: Sequence[str], count: int, folder: Path) -> list[str]:
    said = time.monotonic()
    while True:
        locks = dict(_free(visible, count, folder))
        if len(locks) == count:
            _held.extend(locks.values())
            return list(locks)
        for lock in locks.values():  # holding some while waiting for more could wait forever
            lock.close()
        if time.monotonic() - said > SAY_EVERY:
            print(f"waiting for {count} free GPU(s) among {', '.join(visible)}", file=sys.stderr)
            said = time.monotonic()
        time.sleep(POLL_SECONDS)


def _free(visible: Sequence[str], count: int, folder: Path) -> Iterator[tuple[str, TextIO]]:
    """Up to `count` devices that nobody holds, with the lock on each."""
    for name in visible:
        if count == 0:
            return
        lock = (folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.lock").open("w")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            count -= 1
            yield name, lock
            continue
        lock.close()
