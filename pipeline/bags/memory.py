"""How much memory a job may fill, so that bags stay resident when they fit and stream when not."""

from __future__ import annotations

from pathlib import Path

SHARE = 0.5  # of what is free: the rest is for activations, the optimiser and other jobs
FALLBACK_BYTES = 2 * 2**30


def host_budget(share: float = SHARE) -> int:
    """Bytes of host memory that bags may take: a share of what is free here.

    The smaller of the machine's available memory and what the control group (a cluster job, a
    container) still allows counts. Where neither is known, 2 GiB.
    """
    free = [f for f in (_available(), _control_group()) if f is not None]
    return int(min(free) * share) if free else FALLBACK_BYTES


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _control_group() -> int | None:
    """Version 2 first, then version 1; `max` or a huge number means that there is no limit."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            allowed = Path(limit).read_text().strip()
            taken = Path(used).read_text().strip()
        except OSError:
            continue
        if allowed.isdigit() and int(allowed) < 2**60:
            return max(int(allowed) - int(taken), 0)
    return None
