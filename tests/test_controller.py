"""A lock is removed when its owner is dead, and only then."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

from pipeline import controller


def locked(folder: Path) -> Path:
    (folder / "locks").mkdir(parents=True)
    lock = folder / "locks" / "0.output.lock"
    lock.write_text("results/report.html")
    return lock


def note_of(folder: Path, pid: int, host: str | None = None) -> None:
    owner = controller._identity(pid) | ({"host": host} if host else {})
    (folder / controller.NOTE).write_text(json.dumps(owner))


def test_a_killed_controllers_lock_is_removed(tmp_path: Path) -> None:
    lock = locked(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note_of(tmp_path, process.pid)
    assert controller.take_over(tmp_path) is False, "its owner lives"
    assert lock.exists()
    process.kill()
    process.wait()
    assert controller.take_over(tmp_path) is True
    assert not lock.exists()


def test_another_machines_lock_stays(tmp_path: Path) -> None:
    lock = locked(tmp_path)
    note_of(tmp_path, 1, host=socket.gethostname() + "-other")
    assert controller.take_over(tmp_path) is False
    assert lock.exists()


def test_a_lock_of_unknown_origin_stays(tmp_path: Path) -> None:
    lock = locked(tmp_path)
    assert controller.take_over(tmp_path) is False
    assert lock.exists()
    (tmp_path / controller.NOTE).write_text("{")
    assert controller.take_over(tmp_path) is False
    assert lock.exists()


def test_a_reused_process_number_is_not_the_old_owner(tmp_path: Path) -> None:
    lock = locked(tmp_path)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        owner = controller._identity(process.pid) | {"started": "1"}
        (tmp_path / controller.NOTE).write_text(json.dumps(owner))
        assert controller.take_over(tmp_path) is True
        assert not lock.exists()
    finally:
        process.kill()
        process.wait()
