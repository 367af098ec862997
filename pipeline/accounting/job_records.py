"""What each attempt at a job took, where, and how it ended: `jobs/<stage>/*.json` in the results.

Snakemake's benchmark files know only the attempt that succeeded and nothing of nodes and GPUs. Each
process of a stage writes its own record: at its start, so that one that was killed is known by a
record that never ended, and again at its end. Nothing reads a record but the report and people; a
folder that cannot be written costs the record, not the job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from pipeline.errors import SlideError, UserError
from pipeline.files.artifacts import write_json
from pipeline.runtime import progress, stages
from pipeline.runtime.libraries import installed

FOLDER = "jobs"
SAMPLE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class JobRecord:
    """One attempt.

    Attributes:
        stage: the command, e.g. `tiling`.
        name: which part of it, e.g. `chunk=3,teacher=uni2_h`.
        host, pid: where it ran.
        cluster_job: the scheduler's number, '' where there is none.
        devices: the GPUs it could see, as CUDA_VISIBLE_DEVICES; '' on a CPU.
        device_name: the model of the first one that it used; '' on a CPU.
        started, ended: seconds since 1970; ended is None while it runs, and forever if killed.
        cpu_seconds, memory_mb: processor time, and peak resident memory of the largest process.
        gpu_memory_mb: peak memory that torch allocated, of all devices.
        gpu_busy: mean fraction of time with a kernel on the device, sampled; None on a CPU.
        outcome: running, ok or failed.
        error: one line; '' where there is none.
        libraries: the installed versions of those that the stage depends on, by name.
    """

    stage: str
    name: str
    host: str
    pid: int
    cluster_job: str
    devices: str
    started: float
    device_name: str = ""
    ended: float | None = None
    cpu_seconds: float | None = None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    gpu_busy: float | None = None
    outcome: str = "running"
    error: str = ""
    libraries: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        return None if self.ended is None else self.ended - self.started


@contextlib.contextmanager
def recorded(root: Path, stage: str, **parts: object) -> Iterator[None]:
    """Record the block as one attempt at a job, and say in its log how far it is.

    Args:
        root: the cohort's results folder.
        stage: the command.
        parts: what tells the job from others of the stage; empty values are left out.
    """
    name = ",".join(f"{k}={v}" for k, v in sorted(parts.items()) if v not in ("", None))
    record = JobRecord(
        stage=stage,
        name=name,
        host=socket.gethostname(),
        pid=os.getpid(),
        cluster_job=os.environ.get("SLURM_JOB_ID") or os.environ.get("LSB_JOBID") or "",
        devices=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        started=round(time.time(), 3),
        libraries=installed(stages.stage(stage).libraries),
    )
    file = f"{name or stage}-{int(1000 * record.started)}-{record.host}-{record.pid}.json"
    path = root / FOLDER / stage / file
    _write(path, record)
    busy = GpuSampler(record.devices)
    outcome, error = "failed", ""
    try:
        with busy, progress.reported(f"{stage} {name}".rstrip()):
            yield
        outcome = "ok"
    except BaseException as problem:
        text = str(problem) if isinstance(problem, UserError | SlideError) else repr(problem)
        error = text.partition("\n")[0][:500]
        raise
    finally:
        _write(path, _ended(record, busy, outcome, error))


def read_records(root: Path, stage: str = "*") -> list[JobRecord]:
    """The records of a results folder, oldest first; damaged ones are left out.

    Args:
        root: the results folder.
        stage: of this stage only.
    """
    found = []
    for path in (root / FOLDER).glob(f"{stage}/*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            found.append(JobRecord(**json.loads(path.read_text())))
    return sorted(found, key=lambda r: (r.started, r.stage, r.name))


class GpuSampler:
    """Samples how busy the given devices are, in a thread, as long as the block lasts."""

    def __init__(self, devices: str) -> None:
        self.devices = devices
        self.samples: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> GpuSampler:
        if self.devices and shutil.which("nvidia-smi"):
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()

    @property
    def mean(self) -> float | None:
        return round(fmean(self.samples), 4) if self.samples else None

    def _run(self) -> None:
        ask = ["nvidia-smi", f"--id={self.devices}", "--format=csv,noheader,nounits"]
        while not self._stop.wait(SAMPLE_SECONDS):
            try:
                done = subprocess.run(
                    [*ask, "--query-gpu=utilization.gpu"],
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=True,
                )
                self.samples.append(fmean(float(v) / 100 for v in done.stdout.split()))
            except (OSError, ValueError, subprocess.SubprocessError):
                return  # a device that cannot be asked (MIG) has no figure


def _ended(record: JobRecord, busy: GpuSampler, outcome: str, error: str) -> JobRecord:
    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cpu = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
    name, memory = _gpu_facts()
    return dataclasses.replace(
        record,
        device_name=name,
        ended=round(time.time(), 3),
        cpu_seconds=round(cpu, 3),
        memory_mb=round(max(own.ru_maxrss, children.ru_maxrss) / 1024, 1),
        gpu_memory_mb=memory,
        gpu_busy=busy.mean if name else None,
        outcome=outcome,
        error=error,
    )


def _gpu_facts() -> tuple[str, float | None]:
    """Model of the GPU and peak megabytes, where this process has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return "", None
    peaks = [torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())]
    return torch.cuda.get_device_name(0), round(sum(peaks) / 2**20, 1)


def _write(path: Path, record: JobRecord) -> None:
    with contextlib.suppress(OSError):
        write_json(path, dataclasses.asdict(record))
