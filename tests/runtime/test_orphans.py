"""Of all jobs and processes, those are ended that a dead Snakemake of this folder left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.runtime import orphans

RUN = "0f3a1b2c-1111-4222-8333-0123456789ab"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A squeue that shows `queue.txt`, and a scancel that takes jobs out of it."""
    tools = tmp_path / "tools"
    tools.mkdir()
    table = tmp_path / "queue.txt"
    scripts = {
        "squeue": f'#!/bin/sh\ncat "{table}"\n',
        "scancel": "#!/bin/sh\n"
        f'for job in "$@"; do echo $job >> "{tmp_path}/cancelled"; '
        f'sed -i "/^$job|/d" "{table}"; done\n',
    }
    for name, text in scripts.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return table


def test_only_this_folders_snakemake_jobs_are_cancelled(queue: Path, tmp_path: Path) -> None:
    here, other = tmp_path / "run", tmp_path / "run2"
    (here / orphans.LOGS).mkdir(parents=True)
    (tmp_path / "link").symlink_to(here)
    rows = [
        f"11|{RUN}|{here}",
        f"12|mine_{RUN}|{tmp_path / 'link'}",
        f"13|{RUN}|{other}",
        f"14|an-analysis|{here}",
        f"15|{RUN}x|{here}",
    ]
    queue.write_text("\n".join(rows) + "\n")
    assert orphans.cancel(here) is True
    assert (tmp_path / "cancelled").read_text().split() == ["11", "12"]
    assert queue.read_text().split() == [row.split()[0] for row in rows[2:]]


def test_a_mute_slurm_is_no_proof_that_nothing_runs(tmp_path: Path, queue: Path) -> None:
    (tmp_path / "tools" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert orphans.cancel(tmp_path) is True, "nothing was ever submitted from here"
    (tmp_path / orphans.LOGS).mkdir(parents=True)
    assert orphans.cancel(tmp_path) is False


def test_jobs_that_do_not_end_are_said(
    tmp_path: Path, queue: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / orphans.LOGS).mkdir(parents=True)
    (tmp_path / "tools" / "scancel").write_text("#!/bin/sh\n")
    monkeypatch.setattr(orphans, "WAIT_SECONDS", 0)
    queue.write_text(f"11|{RUN}|{tmp_path}\n")
    assert orphans.cancel(tmp_path) is False
    assert "11" in capsys.readouterr().err


SLEEPS = "import time; print(1, flush=True); time.sleep(100)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS


@pytest.fixture
def start() -> Iterator[Callable[[str, str], subprocess.Popen[str]]]:
    """Starts processes with a mark, which end with the test."""
    started = []

    def begin(code: str, mark: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {orphans.MARK: mark},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("code", "by"), [(SLEEPS, signal.SIGTERM), (DEAF, signal.SIGKILL)])
def test_only_the_dead_runs_processes_are_ended(
    start: Callable[[str, str], subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    by: signal.Signals,
) -> None:
    monkeypatch.setattr(orphans, "TERM_SECONDS", 2.0)
    orphan, other = start(code, "77-1"), start(SLEEPS, "77-12")
    assert orphans.end_processes("77-1") is True
    assert orphan.wait(5) == -by
    assert other.poll() is None


def test_who_starts_anew_from_within_the_dead_run_is_spared(
    start: Callable[[str, str], subprocess.Popen[str]],
) -> None:
    """A shell that a job opened, from which the same command is given."""
    code = (
        "from pipeline.runtime import orphans; "
        "print(1, flush=True); print(orphans.end_processes('77-1'), flush=True)"
    )
    process = start(code, "77-1")
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    assert process.wait(20) == 0


def test_processes_that_do_not_end_are_said(
    start: Callable[[str, str], subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(orphans, "TERM_SECONDS", 0.0)
    monkeypatch.setattr(orphans, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(orphans.os, "kill", lambda *_: None)
    orphan = start(SLEEPS, "77-1")
    assert orphans.end_processes("77-1") is False
    assert f"processes {orphan.pid} have not ended" in capsys.readouterr().err
