"""One controller per results folder; a lock is removed when its owner is dead, and only then."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.runtime import orphans, run_lock

RESULTS = Path("results/tiny")
STATE = Path(".snakemake")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    """A process that could be another Snakemake."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def lock(cohort: str = "tiny") -> Path:
    (STATE / "locks").mkdir(parents=True, exist_ok=True)
    path = STATE / "locks" / f"{len(list((STATE / 'locks').iterdir()))}.output.lock"
    path.write_text(f"results/{cohort}/report.html\n")
    return path


def note(pid: int, **changes: object) -> Path:
    owner = run_lock._identity(pid) | changes
    path = RESULTS / run_lock.NOTES / f"{owner['host']}-{pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(owner))
    return path


def test_a_killed_controllers_lock_is_removed(other: subprocess.Popen[bytes]) -> None:
    left = lock()
    note(other.pid)
    with pytest.raises(UserError, match=rf"process {other.pid} on .*Wait for its end"):
        run_lock.claim(RESULTS, STATE)
    assert left.exists()
    other.kill()
    other.wait()
    assert run_lock.claim(RESULTS, STATE) is True
    assert not left.exists()
    assert [p.stem.rpartition("-")[2] for p in (RESULTS / run_lock.NOTES).iterdir()] == [
        str(os.getpid())
    ]


def test_what_a_killed_controller_left_running_here_is_ended(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next call starts the same job a second time, next to it."""
    monkeypatch.setenv(orphans.MARK, "")  # set anew by the claim
    owner = json.loads(note(other.pid).read_text())
    mark = orphans.mark(owner["pid"], owner["started"])
    job = subprocess.Popen(["sleep", "60"], env=os.environ | {orphans.MARK: mark})
    other.kill()
    other.wait()
    run_lock.claim(RESULTS, STATE)
    assert job.wait(10) < 0
    own = orphans.mark(os.getpid(), run_lock._started(os.getpid()))
    assert os.environ[orphans.MARK] == own, "what this run starts is known to the next one"


def test_one_that_was_refused_leaves_no_note(other: subprocess.Popen[bytes]) -> None:
    """Its death must not look like the death of the one that works."""
    working = note(other.pid)
    for _ in range(2):
        with pytest.raises(UserError):
            run_lock.claim(RESULTS, STATE)
    assert list((RESULTS / run_lock.NOTES).iterdir()) == [working]


def test_another_cohorts_lock_stays(other: subprocess.Popen[bytes]) -> None:
    left, others = lock(), lock("large")
    note(other.pid)
    other.kill()
    other.wait()
    assert run_lock.claim(RESULTS, STATE) is True
    assert not left.exists() and others.exists()


@pytest.mark.parametrize(
    "change", [{"host": socket.gethostname() + "-other"}, {"space": "pid:[1]"}]
)
def test_an_owner_that_cannot_be_asked_counts_as_living(change: dict[str, str]) -> None:
    left, path = lock(), note(1, **change)
    with pytest.raises(UserError, match=r"delete .*json"):
        run_lock.claim(RESULTS, STATE)
    assert left.exists()
    path.unlink()
    assert run_lock.claim(RESULTS, STATE) is False
    assert left.exists(), "nobody knows whose it is"


def test_a_reused_process_number_is_not_the_old_owner(other: subprocess.Popen[bytes]) -> None:
    left = lock()
    note(other.pid, started="1")
    assert run_lock.claim(RESULTS, STATE) is True
    assert not left.exists()


def test_the_end_takes_the_note_away(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from pipeline.runtime import orphans, run_lock;"
        "run_lock.claim(Path('results/tiny'), Path('.snakemake'));"
        "assert list(Path('results/tiny/.controllers').iterdir())"
    )
    root = Path(run_lock.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
    assert not list((RESULTS / run_lock.NOTES).iterdir())


def record(path: str) -> None:
    (STATE / "metadata").mkdir(parents=True, exist_ok=True)
    (STATE / "metadata" / base64.urlsafe_b64encode(path.encode()).decode()).write_text("{}")


def test_tables_that_snakemake_has_no_record_of_are_made_again() -> None:
    names = (
        *("slides/0.parquet", "tiles/manifest/0.json", "features/t/manifest/0.json"),
        *("case_to_features.json", "folds/a/folds.json", "models/a/m/predictions.parquet"),
        *("evaluation/a/evaluation.json", "report.html"),
    )
    # Finished work, and the revision that a teacher was checked with.
    kept = ("tiles/s.h5", "features/t/check.json", "models/a/m/fold_0/seed_0/predictions.parquet")
    for name in (*names, *kept):
        (RESULTS / name).parent.mkdir(parents=True, exist_ok=True)
        (RESULTS / name).write_text("x")
    tables = sorted(RESULTS / name for name in names)
    record("results/other/report.html")
    assert run_lock.unknown_tables(RESULTS, STATE) == tables
    record("results/tiny/report.html")
    assert run_lock.forget_unknown(RESULTS, STATE) == []
    for path in (STATE / "metadata").iterdir():
        path.unlink()
    assert run_lock.forget_unknown(RESULTS, STATE) == tables
    assert not any(table.exists() for table in tables)
    assert all((RESULTS / name).exists() for name in kept)


def test_what_a_killed_run_left_in_slurms_queue_goes_first(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, dead = lock(), note(other.pid)
    other.kill()
    other.wait()
    asked: list[Path] = []
    monkeypatch.setattr(run_lock.orphans, "cancel", lambda f: asked.append(f))
    with pytest.raises(UserError, match="cannot be cancelled now"):
        run_lock.claim(RESULTS, STATE)
    assert asked == [Path.cwd()]
    assert left.exists() and dead.exists(), "the next call must try again"
    monkeypatch.setattr(run_lock.orphans, "cancel", lambda folder: True)
    assert run_lock.claim(RESULTS, STATE) is True
    assert not left.exists() and not dead.exists()


def test_a_living_cohorts_jobs_are_not_cancelled_with_a_dead_ones(
    other: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were submitted from one folder, and Slurm's queue does not tell them apart."""
    note(4_194_999)
    working = Path("results/large") / run_lock.NOTES / "x.json"
    working.parent.mkdir(parents=True)
    working.write_text(json.dumps(run_lock._identity(other.pid)))
    (STATE / "slurm_logs").mkdir(parents=True)
    monkeypatch.setattr(run_lock.orphans, "cancel", lambda folder: pytest.fail("cancelled"))
    with pytest.raises(UserError, match="another cohort of this folder"):
        run_lock.claim(RESULTS, STATE)
