"""Faults that strike a job in the middle of its work; put into its Python as `sitecustomize`.

`faults.json` in the working folder lists them. A fault strikes when a job of its stage, with its
words on the command line, has made one of the files that it waits for; once for each of `times`.
It freezes the process (as a dead file system would), kills it, or ends it with an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

FAULTS = Path("faults.json")


def strike(fault: dict) -> None:
    """Do the damage, unless it has been done often enough."""
    for time_ in range(fault.get("times", 1)):
        with contextlib.suppress(FileExistsError):
            Path(f"{fault['name']}.{time_}.struck").touch(exist_ok=False)
            break
    else:
        return
    sign = {"freeze": signal.SIGSTOP, "kill": signal.SIGKILL}[fault["do"]]
    os.kill(os.getpid(), sign)


def watch(fault: dict) -> None:
    before = set(Path().glob(fault["after"]))
    while not set(Path().glob(fault["after"])) - before:
        time.sleep(0.02)
    strike(fault)


def main() -> None:
    words = sys.orig_argv
    if "pipeline" not in words or not FAULTS.is_file():
        return
    command = " ".join(words[words.index("pipeline") + 1 :])
    for fault in json.loads(FAULTS.read_text()):
        if command.startswith(fault["stage"]) and all(w in command for w in fault["words"]):
            threading.Thread(target=watch, args=(fault,), daemon=True).start()


main()
