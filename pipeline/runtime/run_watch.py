"""What the running Snakemake knows of its jobs: which run, which failed and why.

A handler on Snakemake's own logger, so that every executor is covered. It also keeps the jobs'
parameters, a kilobyte of JSON each, off the screen; Snakemake's log file has them whole.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

NOTHING = "Nothing to be done"
SCREEN = "DefaultStreamHandler"  # Snakemake's name for the handler that writes to the terminal
LONGEST = 300
TELL_SECONDS = 60.0
SHOWN = 4

_PARAMETERS = re.compile(r"""--cfg '[^']*'(?:"'"'[^']*')*""")
# What schedulers and the kernel write when they end a job, into its log or their own.
_ENDED_BY = re.compile(r"oom.?kill|out of memory|time limit|cancelled|preempt|killed", re.I)
_RAISED = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit|Missing)\b")


@dataclasses.dataclass(frozen=True)
class RunningJob:
    """A job as Snakemake announced it.

    Attributes:
        rule: its rule.
        parts: which part of the rule's work, e.g. `task survival, model shazam_v2`.
        logs: its log files, the scheduler's own last.
    """

    rule: str
    parts: str
    logs: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.rule} {self.parts}".rstrip()


@dataclasses.dataclass(frozen=True)
class FailedJob:
    """A job that ended badly at its last attempt, and what its log says of it."""

    job: RunningJob
    reason: str

    @property
    def line(self) -> str:
        log = f" (log: {self.job.logs[0]})" if self.job.logs else ""
        return f"{self.job.title}: {self.reason}{log}"


class RunWatch(logging.Handler):
    """Follows a run by what Snakemake logs.

    Attributes:
        running: job number -> job.
        failed: job number -> job; one that is tried again is not failed.
        planned: (rule, wildcards) of every job that was announced, in a dry-run as well.
        idle: whether Snakemake said that nothing is to be done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.running: dict[int, RunningJob] = {}
        self.failed: dict[int, FailedJob] = {}
        self.planned: list[tuple[str, dict[str, str]]] = []
        self.idle = False

    def emit(self, record: logging.LogRecord) -> None:
        facts: dict[str, Any] = record.__dict__
        event = str(facts.get("event") or "")
        if event == "job_info":
            wildcards = {k: str(v) for k, v in dict(facts["wildcards"] or {}).items()}
            self.planned.append((facts["rule_name"], wildcards))
            parts = ", ".join(f"{name} {value}" for name, value in wildcards.items())
            job = RunningJob(facts["rule_name"], parts, tuple(facts["log"] or ()))
            self.failed.pop(facts["jobid"], None)
            self.running[facts["jobid"]] = job
        elif event == "job_finished":
            self.running.pop(facts["job_id"], None)
        elif event == "job_error":
            self._failed(facts)
        elif NOTHING in str(record.msg):
            self.idle = True

    def _failed(self, facts: dict[str, Any]) -> None:
        number, logs = facts["jobid"], tuple(facts["log"] or ())
        job = self.running.pop(number, RunningJob(facts["rule_name"], "", logs))
        job = dataclasses.replace(job, logs=logs or job.logs)
        self.failed[number] = FailedJob(job, reason(job.logs, str(facts.get("rule_msg") or "")))


def tell(watch: RunWatch, every: float = TELL_SECONDS) -> None:
    """Show the last lines of the running jobs' logs from time to time, until the process ends."""

    def keep_telling() -> None:
        while not pause.wait(every):
            if lines := last_lines(list(watch.running.values())):
                print("\n".join(lines), file=sys.stderr, flush=True)

    pause = threading.Event()
    threading.Thread(target=keep_telling, daemon=True).start()


def last_lines(running: Sequence[RunningJob]) -> list[str]:
    """The last line of each job's log, of those that wrote last; and how many more there are."""
    said = [(*_last_line(job), job) for job in running]
    said.sort(key=lambda found: (-found[0], found[2].title))
    shown = [f"  {line or f'{job.title}: not started yet'}" for _, line, job in said[:SHOWN]]
    more = len(said) - len(shown)
    return shown + [f"  and {more} more running or waiting jobs"] * (more > 0)


def _last_line(job: RunningJob) -> tuple[float, str]:
    """When a job wrote last, and what."""
    path = Path(job.logs[0]) if job.logs else None
    try:
        written = path.stat().st_mtime if path else 0.0
    except OSError:
        written = 0.0
    lines = _read(path).split("\n") if path else []
    return written, next((line.strip() for line in reversed(lines) if line.strip()), "")


def attach(logger: logging.Logger) -> RunWatch:
    """Follow what this logger says, and shorten what its terminal shows."""
    watch = RunWatch()
    logger.addHandler(watch)
    for handler in logger.handlers:
        if handler.name == SCREEN and handler.formatter is not None:
            handler.setFormatter(_Short(handler.formatter))
    return watch


class _Short(logging.Formatter):
    """Another formatter's text without the jobs' parameters."""

    def __init__(self, whole: logging.Formatter) -> None:
        super().__init__()
        self.whole = whole

    def format(self, record: logging.LogRecord) -> str:
        return shortened(self.whole.format(record))


def shortened(text: str) -> str:
    """Put … for the JSON in a stage's command line."""
    return _PARAMETERS.sub("--cfg …", text or "")


def reason(logs: Sequence[str], otherwise: str = "") -> str:
    """Why a job ended, in one line, from the end of its log files.

    Args:
        logs: files; any may be missing or empty.
        otherwise: what Snakemake says of it.
    """
    texts = [_read(Path(log)) for log in logs]
    found = [line for text in texts if (line := _last_error(text))]
    found += [line for text in texts if (line := _last(_ENDED_BY, text.splitlines()))]
    if otherwise:
        found.append(otherwise)
    found.append("ended without a message; it may have been killed, e.g. because memory ran out")
    line = " ".join(found[0].split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _last_error(text: str) -> str:
    """The program's own last message, or a traceback's last line."""
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith("error: "):
            more = any(line.strip() for line in lines[number + 1 :])
            return lines[number].removeprefix("error: ") + " [more in the log]" * more
    return _last(_RAISED, lines, at_start=True)


def _last(pattern: re.Pattern[str], lines: Iterable[str], at_start: bool = False) -> str:
    ask = pattern.match if at_start else pattern.search
    return next((line for line in reversed(list(lines)) if ask(line)), "")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[-100_000:]
    except OSError:
        return ""
