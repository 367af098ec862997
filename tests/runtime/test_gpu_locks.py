"""Jobs of a machine get distinct GPUs; a dead one frees its own; a scheduler's choice stands."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.runtime import gpu_locks

HOLD = """
import sys, time
from pipeline.runtime import gpu_locks
gpu_locks.POLL_SECONDS = 0.02
print(",".join(gpu_locks.claim(int(sys.argv[1]))), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """Start a process that claims devices, prints them and holds them until told to end."""
    started = []

    def begin(count: int = 1, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(count)],
            env=os.environ | {"TMPDIR": str(tmp_path)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def claimed(process: subprocess.Popen[str]) -> list[str]:
    line = process.stdout.readline().strip()
    return line.split(",") if line else []


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=10)


def test_each_process_gets_its_own_device(start) -> None:
    processes = [start(CUDA_VISIBLE_DEVICES="0,1,2") for _ in range(3)]
    assert sorted(name for p in processes for name in claimed(p)) == ["0", "1", "2"]


def test_the_next_waits_until_one_is_free(start) -> None:
    first, second = (start(CUDA_VISIBLE_DEVICES="4,7") for _ in range(2))
    taken = {first: claimed(first), second: claimed(second)}
    third = start(CUDA_VISIBLE_DEVICES="4,7")
    time.sleep(0.5)
    assert third.poll() is None
    end(second)
    assert claimed(third) == taken[second]


def test_a_killed_process_frees_its_device(start) -> None:
    first = start(CUDA_VISIBLE_DEVICES="0")
    assert claimed(first) == ["0"]
    second = start(CUDA_VISIBLE_DEVICES="0")
    first.send_signal(signal.SIGKILL)
    assert claimed(second) == ["0"]


def test_two_that_want_two_of_three_do_not_hold_each_other_up(start) -> None:
    processes = [start(2, CUDA_VISIBLE_DEVICES="0,1,2") for _ in range(2)]
    ready, _, _ = select.select([p.stdout for p in processes], [], [], 10)
    first = next(p for p in processes if p.stdout in ready)
    other = next(p for p in processes if p is not first)
    assert len(claimed(first)) == 2
    assert not select.select([other.stdout], [], [], 0.3)[0]
    end(first)
    assert len(claimed(other)) == 2


def test_a_schedulers_choice_is_left_alone(start) -> None:
    """Under Slurm every job may see its device as number 0; they are different ones."""
    processes = [start(CUDA_VISIBLE_DEVICES="0", SLURM_JOB_ID=str(i)) for i in range(2)]
    assert [claimed(p) for p in processes] == [[], []]


def test_jobs_inside_one_allocation_share_its_devices_out(start) -> None:
    inside = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_ID": "9"}
    processes = [start(**inside) for _ in range(2)]
    assert sorted(name for p in processes for name in claimed(p)) == ["0", "1"]
    another = start(CUDA_VISIBLE_DEVICES="0,1", SLURM_JOB_ID="10")
    assert claimed(another) == ["0"], "another allocation's numbers are its own"


def test_uuids_and_device_files_are_names_too(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert claimed(start(CUDA_VISIBLE_DEVICES="GPU-8f/../3,MIG-1")) == ["GPU-8f/../3"]
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(gpu_locks, "DEVICE_FILES", tmp_path)
    assert gpu_locks.visible_devices({}) == ["0", "2", "10"]
    assert gpu_locks.visible_devices({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_more_than_the_machine_has_is_said() -> None:
    with pytest.raises(ConfigError, match="shows 1 GPU"):
        gpu_locks.claim(2, {"CUDA_VISIBLE_DEVICES": "3"})


def test_a_job_without_a_gpu_claims_none() -> None:
    assert gpu_locks.claim(0, {"CUDA_VISIBLE_DEVICES": "0,1"}) == []
