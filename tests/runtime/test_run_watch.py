"""A failed job is one line with its reason and its log; the jobs' JSON is off the screen."""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime import run_watch
from pipeline.runtime.run_watch import RunningJob, RunWatch


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    found = logging.getLogger("a run")
    found.setLevel(logging.INFO)
    found.propagate = False
    yield found
    found.handlers.clear()


def announce(logger: logging.Logger, number: int, rule: str, log: Path, **wildcards: str) -> None:
    facts: dict[str, Any] = {"jobid": number, "rule_name": rule, "log": [str(log)]}
    logger.info("a job", extra={**facts, "event": "job_info", "wildcards": wildcards})


def fail(logger: logging.Logger, number: int, rule: str, *logs: Path) -> None:
    facts: dict[str, Any] = {"jobid": number, "rule_name": rule, "log": [str(p) for p in logs]}
    logger.error("it failed", extra={**facts, "event": "job_error", "rule_msg": None})


def lines(watch: RunWatch) -> list[str]:
    return [job.line for job in watch.failed.values()]


def test_a_failed_job_is_one_line_with_stage_part_reason_and_log(
    logger: logging.Logger, tmp_path: Path
) -> None:
    watch = run_watch.attach(logger)
    log = tmp_path / "shazam_v2.log"
    log.write_text("fold 0\nerror: the loss is not a number; lower training.learning_rate\n")
    announce(logger, 4, "training", log, task="survival", model="shazam_v2")
    assert watch.running[4].title == "training task survival, model shazam_v2"
    fail(logger, 4, "training", log)
    assert lines(watch) == [
        "training task survival, model shazam_v2: the loss is not a number; lower "
        f"training.learning_rate (log: {log})"
    ]
    assert not watch.running


def test_a_job_that_works_at_the_second_attempt_has_not_failed(
    logger: logging.Logger, tmp_path: Path
) -> None:
    watch = run_watch.attach(logger)
    announce(logger, 1, "tiling", tmp_path / "0.log", chunk="0")
    fail(logger, 1, "tiling", tmp_path / "0.log")
    announce(logger, 1, "tiling", tmp_path / "0.log", chunk="0")
    logger.info("done", extra={"event": "job_finished", "job_id": 1})
    assert lines(watch) == []
    assert watch.planned == [("tiling", {"chunk": "0"})] * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("error: 3 slides failed:\n  - a\n  - b\n", "3 slides failed: [more in the log]"),
        (
            "Traceback (most recent call last):\n  File \"x\", line 3\nKeyError: 'mpp'\n",
            "KeyError: 'mpp'",
        ),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory\n", "torch.cuda.OutOfMemoryError"),
        ("slurmstepd: error: Detected 1 oom_kill event in step 7\n", "slurmstepd: error: Detected"),
        ("JOB 7 ON n1 CANCELLED AT 3 DUE TO TIME LIMIT\n", "JOB 7 ON n1 CANCELLED"),
        ("", "ended without a message"),
        ("tiling: 3 of 9 slides\n", "ended without a message"),
    ],
)
def test_the_reason_is_what_the_log_ends_with(tmp_path: Path, text: str, expected: str) -> None:
    log = tmp_path / "a.log"
    log.write_text(text)
    assert run_watch.reason([str(tmp_path / "gone.log"), str(log)]).startswith(expected)


def test_the_scheduler_s_own_log_is_read_where_the_job_said_nothing(tmp_path: Path) -> None:
    (tmp_path / "job.log").write_text("")
    (tmp_path / "slurm.log").write_text("slurmstepd: error: *** CANCELLED DUE TO TIME LIMIT ***\n")
    logs = [str(tmp_path / "job.log"), str(tmp_path / "slurm.log")]
    assert "TIME LIMIT" in run_watch.reason(logs)


def test_a_reason_is_never_a_page(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("error: " + "x" * 5000)
    assert len(run_watch.reason([str(tmp_path / "a.log")])) == run_watch.LONGEST + 1


def test_the_screen_shows_no_json_and_the_file_all_of_it(logger: logging.Logger) -> None:
    job = json.dumps({"title": 'Müller\'s "data"', "keys": ["x"] * 200})
    command = f"python -m pipeline tiling --cfg {shlex.quote(job)} --chunk 3 > 3.log"
    streams = {name: io.StringIO() for name in (run_watch.SCREEN, "DefaultLogFileHandler")}
    for name, stream in streams.items():
        handler = logging.StreamHandler(stream)
        handler.name = name
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    run_watch.attach(logger)
    logger.error("Command '%s' returned non-zero exit status 1", command)
    screen, file = (stream.getvalue() for stream in streams.values())
    assert screen == (
        "Command 'python -m pipeline tiling --cfg … --chunk 3 > 3.log' returned non-zero exit "
        "status 1\n"
    )
    assert command in file


def test_nothing_to_be_done_is_noticed(logger: logging.Logger) -> None:
    watch = run_watch.attach(logger)
    assert not watch.idle
    logger.info("Nothing to be done (all requested files are present and up to date).")
    assert watch.idle


def test_the_screen_shows_where_the_running_jobs_are(tmp_path: Path) -> None:
    jobs = []
    for number in range(6):
        log = tmp_path / f"{number}.log"
        log.write_text(f"started\n12:00:00 tiling chunk={number}: 1 of 2 slides\n\n")
        os.utime(log, (number, number))
        jobs.append(RunningJob("tiling", f"chunk {number}", (str(log),)))
    jobs[5] = RunningJob("training", "task t, model m", (str(tmp_path / "none.log"),))
    shown = run_watch.last_lines(jobs)
    assert shown[0] == "  12:00:00 tiling chunk=4: 1 of 2 slides"
    assert shown[-1] == "  and 2 more running or waiting jobs"
    assert run_watch.last_lines(jobs[5:]) == ["  training task t, model m: not started yet"]
    assert run_watch.last_lines([]) == []


def test_it_is_told_again_and_again(
    logger: logging.Logger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = run_watch.attach(logger)
    announce(logger, 1, "tiling", tmp_path / "0.log", chunk="0")
    run_watch.tell(watch, every=0.02)
    time.sleep(0.2)
    logger.info("done", extra={"event": "job_finished", "job_id": 1})
    assert capsys.readouterr().err.count("tiling chunk 0: not started yet") > 1
