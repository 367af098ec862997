"""How many cores a process may really use: never the machine's count. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def cpu_budget(asked: int = 0) -> int:
    """The least of what the job was given and what the system grants: at least 1.

    Args:
        asked: the job's threads; 0 for all that the system grants.

    The system's limits are the affinity (which Slurm and containers set), `SLURM_CPUS_PER_TASK`,
    and the quota of the process's control group and of those above it.
    """
    limits = [len(os.sched_getaffinity(0)), *_quotas()]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit():
        limits.append(int(slurm))
    if asked > 0:
        limits.append(asked)
    return max(1, min(limits))


def _quotas() -> list[int]:
    """Whole cores of every quota that holds here, in control groups of version 2 and 1."""
    texts = []
    for folder in _folders():
        try:
            texts.append((folder / "cpu.max").read_text())
        except OSError:
            continue
    for folder in (CGROUPS / "cpu", CGROUPS / "cpu,cpuacct"):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            texts.append(f"{quota} {(folder / 'cpu.cfs_period_us').read_text()}")
        except OSError:
            continue
    found = []
    for text in texts:
        parts = text.split()
        if len(parts) == 2 and parts[0].isdigit() and parts[1].isdigit() and int(parts[1]):
            found.append(max(1, int(parts[0]) // int(parts[1])))
    return found


def _folders() -> list[Path]:
    """The process's control group and those above it; in a container only the top is seen."""
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    own = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    folder = CGROUPS / own
    return [folder, *(p for p in folder.parents if p == CGROUPS or CGROUPS in p.parents)]
