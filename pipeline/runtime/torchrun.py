"""One process for each of several GPUs, as `torchrun` starts them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from pipeline.runtime.child_processes import export_package

WORLD = "WORLD_SIZE"
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


def started() -> bool:
    """Whether `torchrun` started this process, and gave it a number and a GPU."""
    return WORLD in os.environ


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `python -m pipeline` as several processes of one training, and wait for them.

    They see the GPUs that this process sees, and end with it, however it ends.

    Args:
        processes: how many.
        arguments: of each.

    Returns:
        the exit status; 0 where all have ended well.
    """
    export_package()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "pipeline", *arguments]
    follow = _follow_parent if sys.platform == "linux" else None
    return subprocess.run(command, preexec_fn=follow).returncode


def _follow_parent() -> None:
    ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)
