"""Processes that help a stage, and do not outlive it."""

from __future__ import annotations

import multiprocessing
import os
import threading

from pipeline import ROOT


def export_package() -> None:
    """Let the processes that this one starts import this very package, wherever it lies."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(
        dict.fromkeys(os.pathsep.join(paths).split(os.pathsep))
    )


def stay_with_parent() -> None:
    """End this process when the one that started it ends, however that ended.

    A pool's worker waits for work on a pipe whose other end it holds as well, so that it would wait
    forever after a `kill -9` of its parent, with all the memory it has.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
