"""Workers are counted from what a job may use, not from what the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.runtime import cpu_budget


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 cores without any limit."""
    (tmp_path / "groups").mkdir()
    monkeypatch.setattr(cpu_budget, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(cpu_budget, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(cpu_budget.os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    return tmp_path / "groups"


def test_the_least_of_all_limits(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_budget.cpu_budget() == 16
    assert cpu_budget.cpu_budget(4) == 4
    assert cpu_budget.cpu_budget(64) == 16
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert cpu_budget.cpu_budget() == 6
    (groups / "cpu.max").write_text("350000 100000\n")
    assert cpu_budget.cpu_budget(4) == 3
    (groups / "cpu.max").write_text("max 100000\n")
    assert cpu_budget.cpu_budget() == 6
    (groups / "cpu").mkdir()
    (groups / "cpu/cpu.cfs_quota_us").write_text("50000\n")
    (groups / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cpu_budget.cpu_budget() == 1
    (groups / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_budget.cpu_budget() == 6


def test_a_quota_above_the_own_group_holds_too(groups: Path) -> None:
    inner = groups / "slice" / "job"
    inner.mkdir(parents=True)
    (groups.parent / "own").write_text("0::/slice/job\n")
    (inner / "cpu.max").write_text("800000 100000\n")
    assert cpu_budget.cpu_budget() == 8
    (groups / "slice" / "cpu.max").write_text("200000 100000\n")
    assert cpu_budget.cpu_budget() == 2
