"""Runs Snakemake in forked children, so that fifty dry-runs pay for its imports once.

Reads one JSON object a line and answers with the exit code. The modules of `pipeline` are not
imported here: each child imports those of its own working copy.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import gc
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# What Snakemake and the workflow import, other than the package itself.
IMPORTED = (
    "h5py",
    "pandas",
    "planner",
    "pyarrow.parquet",
    "pydantic",
    "smart_open",
    "snakemake.cli",
    "snakemake.dag",
    "snakemake.executors.dryrun",
    "snakemake.executors.local",
    "snakemake.scheduling.job_scheduler",
    "snakemake.storage",
    "snakemake_executor_plugin_slurm",
    "typer",
    "yaml",
    "yte",
)


@dataclasses.dataclass(frozen=True)
class Ended:
    returncode: int
    stdout: str
    stderr: str


class Warm:
    """A process of this file, and how to call it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment["OMP_NUM_THREADS"] = "1"
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self._folder.name,
            env=environment,
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that runs Snakemake died"
        return line.strip()

    def run(self, argv: list[str], cwd: Path, environment: dict[str, str]) -> Ended:
        files = {name: str(Path(self._folder.name, name)) for name in ("stdout", "stderr")}
        order = {"argv": argv, "cwd": str(cwd), "environment": environment, **files}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._answer())
        said = {name: Path(path).read_text(errors="replace") for name, path in files.items()}
        return Ended(code, **said)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._folder.cleanup()


@functools.cache
def warm() -> Warm:
    running = Warm()
    atexit.register(running.close)
    return running


def main() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # a child looks through none of this for garbage
    print("ready", flush=True)
    for line in sys.stdin:
        print(run(**json.loads(line)), flush=True)


def run(argv: list[str], cwd: str, environment: dict[str, str], stdout: str, stderr: str) -> int:
    """Run `snakemake` or `planner` with its arguments, as in a process of its own."""
    pid = os.fork()
    if pid == 0:
        child(argv, cwd, environment, (stdout, stderr))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def child(argv: list[str], cwd: str, environment: dict[str, str], files: tuple[str, str]) -> None:
    """Ends this process as it would have ended alone: what is registered for its end is run."""
    os.chdir(cwd)
    for number, name in enumerate(files, 1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [cwd, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = argv
    if argv[0] == "planner":
        sys.exit(sys.modules["planner"].main())
    sys.exit(sys.modules["snakemake.cli"].main(argv[1:]))


if __name__ == "__main__":
    main()
