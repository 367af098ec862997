"""The tiny cohort on the testbed: run it, wait for a moment, count what reran, compare bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from house import TINY, House

from pipeline.accounting.job_records import JobRecord, read_records

# The shipped profile as it is, but for how often it looks: these jobs last seconds, not hours.
COMMAND = (
    "--workflow-profile", "profiles/slurm",
    "--slurm-init-seconds-before-status-checks", "2",
    "--seconds-between-status-checks", "2",
    "--retries", "1",
)  # fmt: skip
# One slide is truncated, one blank, one without its scale.
CONFIG = {
    **TINY,
    "cohort": {
        **TINY["cohort"],
        "synthetic": {**TINY["cohort"]["synthetic"], "broken_slides": True},
    },
}
# What tells of the run and not of the cohort.
OF_THE_RUN = re.compile(r"^(logs|benchmarks|jobs|report)/|^report\.html$")
TIMINGS = re.compile(rb'\n *"seconds": [0-9.e-]+,?')


@dataclasses.dataclass
class Study:
    """A house on the testbed."""

    house: House

    @property
    def results(self) -> Path:
        return self.house.path / "results" / "tiny"

    def run(self, *arguments: str, check: bool = True) -> float:
        """Run to the end; returns the seconds."""
        start = time.monotonic()
        self.house.run(*COMMAND, *arguments, check=check, environment=self.environment())
        return time.monotonic() - start

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a run in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *COMMAND, *arguments],
            cwd=self.house.path,
            env=self.house.environment() | self.environment(),
            stdout=(self.house.path / "run.log").open("w"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )

    def environment(self) -> dict[str, str]:
        """Jobs look for `sitecustomize` here."""
        return {"PYTHONPATH": f"{self.house.path}{os.pathsep}{self.house.path / 'strikes'}"}

    def strike(self, *faults: Mapping[str, object]) -> None:
        """Let faults happen from now on."""
        folder = self.house.path / "strikes"
        folder.mkdir(exist_ok=True)
        source = Path(__file__).with_name("strikes.py")
        (folder / "sitecustomize.py").write_text(source.read_text())
        (self.house.path / "faults.json").write_text(json.dumps(faults))

    def struck(self) -> int:
        return len(list(self.house.path.glob("*.struck")))

    def wait(self, ready: Callable[[], object], what: str, seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            log = self.house.path / "run.log"
            said = log.read_text()[-5000:] if log.exists() else ""
            assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s\n{said}"
            time.sleep(0.2)

    def records(self, since: float = 0) -> list[JobRecord]:
        return [r for r in read_records(self.results) if r.started >= since]

    def attempts(self, since: float) -> dict[str, int]:
        """Job -> how often it was begun since then."""
        return dict(Counter(f"{r.stage}[{r.name}]" for r in self.records(since)))

    def forget(self, pattern: str) -> None:
        """Delete a part of the results, as if it had not been made."""
        for path in list(self.results.glob(pattern)):
            path.unlink()

    def slide_times(self, pattern: str) -> dict[str, int]:
        whole = (p for p in self.results.glob(pattern) if not p.name.startswith("."))
        return {p.name: p.stat().st_mtime_ns for p in whole}

    def contents(self) -> dict[str, str]:
        """File -> digest of its bytes, for all that the cohort's results consist of."""
        found = {}
        for path in sorted(self.results.rglob("*")):
            name = path.relative_to(self.results).as_posix()
            if not path.is_file() or OF_THE_RUN.match(name):
                continue
            content = path.read_bytes()
            if path.name == "meta.json":
                content = TIMINGS.sub(b"", content)
            found[name] = hashlib.sha256(content).hexdigest()
        return found


def differences(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(n for n in {*one, *other} if one.get(n) != other.get(n))


def most_at_once(records: Sequence[JobRecord]) -> int:
    """How many of the attempts ran at the same time, at most."""
    edges = [(r.started, 1) for r in records] + [(r.ended or time.time(), -1) for r in records]
    running = most = 0
    for _, step in sorted(edges):
        running += step
        most = max(most, running)
    return most


def _hear_interrupts() -> None:
    """A shell starts what runs in the background deaf to Ctrl-C, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
