"""Answers that one parse of the workflow may take from the last one.

Every call of Snakemake, and every job on a cluster, parses the workflow again. What it asks of
thousands of files does not change between two parses as long as the files do not, so it is written
down in `.snakemake`, keyed by what the answer depends on. Losing the file costs time only.
Standard library only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# A file that changed this recently may change again without a later time on it (the granularity of
# file systems), so nothing about it is written down yet.
SETTLED_SECONDS = 2.0


@dataclasses.dataclass
class Recall:
    """Answers by key, read from `path` and written back when they have changed.

    Attributes:
        path: a JSON file; damaged or missing means empty.
        known: as read.
        used: what was asked for since, which alone is written back.
    """

    path: Path
    known: dict[str, Any]
    used: dict[str, Any] = dataclasses.field(default_factory=dict)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def answer(self, key: str, find: Callable[[], Any], keep: bool = True) -> Any:
        """The known answer to `key`, or the one that `find` gives (JSON-able).

        Args:
            key: everything that the answer depends on.
            find: called where the answer is not known.
            keep: whether to write the answer down.
        """
        found = self.known[key] if key in self.known else find()
        if keep:
            with self.lock:
                self.used[key] = found
        return found

    def save(self) -> None:
        """Write the answers down; where that is impossible, the next parse is slow, no more."""
        if self.used == self.known:
            return
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps(self.used))
            temporary.replace(self.path)


def open_recall(path: Path) -> Recall:
    """Read what is known from `path`."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        known = {}
    return Recall(path, known if isinstance(known, dict) else {})


def file_state(path: Path) -> tuple[str, bool]:
    """What shows that a file is the one it was, and whether it has been left alone for a while.

    The inode's change time cannot be set back, unlike the modification time, so that a file that
    was replaced by one of the same size and time is noticed.

    Raises:
        OSError: the file cannot be asked.
    """
    stat = path.stat()
    state = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"
    newest = max(stat.st_mtime, stat.st_ctime)
    return state, time.time() - newest > SETTLED_SECONDS
