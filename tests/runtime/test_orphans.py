"""Of all jobs in a queue, those are cancelled that a Snakemake submitted from this folder."""

from __future__ import annotations

import os
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
