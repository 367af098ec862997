"""Devices, cores and batch sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.extraction import devices


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert devices.choose_devices("auto") == [torch.device("cpu")]
    assert devices.choose_devices("cpu") == [torch.device("cpu")]
    with pytest.raises(ConfigError, match="device `cuda`: torch sees 0 GPUs"):
        devices.choose_devices("cuda")
    with pytest.raises(ConfigError, match="device `gpu`"):
        devices.choose_devices("gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [d.index for d in devices.choose_devices("auto")] == [0, 1]
    assert devices.choose_devices("cuda:1") == [torch.device("cuda", 1)]
    assert len(devices.choose_devices("cuda:0, cuda:1")) == 2
    with pytest.raises(ConfigError, match="cuda:2"):
        devices.choose_devices("cuda:2")


def test_cores_are_the_least_of_all_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert devices.cpu_budget() == 16
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert devices.cpu_budget() == 6
    (tmp_path / "cpu.max").write_text("350000 100000\n")
    assert devices.cpu_budget() == 3
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert devices.cpu_budget() == 6
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("200000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert devices.cpu_budget() == 2


def test_batch_grows_while_it_pays() -> None:
    speed = {32: 1000, 64: 1500, 128: 1900, 256: 1910, 512: 1900}
    assert devices.grow(list(speed), lambda n: n / speed[n]) == 128


def test_batch_stops_where_memory_ends() -> None:
    def seconds(size: int) -> float:
        if size > 64:
            raise torch.OutOfMemoryError("out of memory")
        return 1.0

    assert devices.grow((32, 64, 128), seconds) == 64
    assert devices.grow((128, 256), seconds) == 1


def test_batch_of_a_cpu_is_fixed() -> None:
    cpu = torch.device("cpu")
    assert devices.choose_batch_size("auto", [], 224, cpu) == devices.CPU_BATCH
    assert devices.choose_batch_size(7, [], 224, cpu) == 7
