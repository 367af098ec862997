"""Every attempt at a job leaves a record: whole, failed or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from pipeline.accounting import job_records
from pipeline.accounting.job_records import read_records, recorded
from pipeline.errors import UserError


def test_an_attempt_that_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with recorded(tmp_path, "tiling", chunk=3, teacher=""):
        (running,) = read_records(tmp_path)
        assert running.outcome == "running"
        assert running.seconds is None
        sum(range(10**5))
    (record,) = read_records(tmp_path)
    assert (record.stage, record.name, record.outcome) == ("tiling", "chunk=3", "ok")
    assert (record.devices, record.cluster_job) == ("1", "77")
    assert record.seconds >= 0
    assert record.cpu_seconds > 0
    assert record.memory_mb > 1
    assert record.gpu_busy is None, "torch used no GPU"
    assert record.libraries["torch"] == metadata.version("torch")


def test_a_failure_says_why_and_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(UserError), recorded(tmp_path, "folds", task="survival"):
        raise UserError("too few cases\nmore text")
    (record,) = read_records(tmp_path)
    assert (record.outcome, record.error) == ("failed", "too few cases")


def test_a_killed_attempt_never_ended(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from pipeline.accounting.job_records import recorded\n"
        "with recorded(pathlib.Path(sys.argv[1]), 'training', model='m'):\n"
        "    print('in', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (record,) = read_records(tmp_path)
    assert (record.outcome, record.ended, record.name) == ("running", None, "model=m")


def test_attempts_at_one_job_stand_side_by_side(tmp_path: Path) -> None:
    for _ in range(2):
        with recorded(tmp_path, "tiling", chunk=0):
            time.sleep(0.002)
    damaged = tmp_path / "jobs" / "tiling" / "x.json"
    damaged.write_text("{")
    assert len(read_records(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_costs_the_record_only(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("in the way")
    done = []
    with recorded(tmp_path, "tiling", chunk=0):
        done.append(1)
    assert done
    assert read_records(tmp_path) == []


def test_the_device_is_asked_how_busy_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/asked"\necho 90\necho 70\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(job_records, "SAMPLE_SECONDS", 0.01)
    with job_records.GpuSampler("2,3") as sampler:
        while not sampler.samples:
            pass
    assert sampler.mean == 0.8
    assert "--id=2,3" in (tmp_path / "asked").read_text()
