"""The workflow on a real Slurm: whole, and struck in the middle in every way that Slurm knows.

After each blow the same command finishes what is missing and nothing else, and every file of the
results is, byte for byte, the one of an undisturbed run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from itertools import combinations

from cohort import Study, differences, most_at_once
from testbed import GPUS, Cluster

MANIFESTS = [f"results/tiny/features/vit_tiny/manifest/{chunk}.json" for chunk in (0, 1)]
JOB = "extraction[chunk={},teacher=vit_tiny]"


def slides_of(study: Study, chunk: int) -> list[str]:
    manifest = study.results / "tiles" / "manifest" / f"{chunk}.json"
    return [r["slide_id"] for r in json.loads(manifest.read_text())["slides"] if r["path"]]


def blow(study: Study, do: str, *chunks: int) -> list[dict]:
    """Faults that strike a chunk's extraction once its first slide is done."""
    return [
        {
            "name": f"chunk{chunk}",
            "stage": "extraction",
            "words": [f"--chunk {chunk} "],
            "after": f"results/tiny/features/vit_tiny/{slides_of(study, chunk)[0]}.h5",
            "do": do,
        }
        for chunk in chunks
    ]


def running(study: Study) -> dict[str, str]:
    """Job -> Slurm's number, of what runs now."""
    return {
        f"{r.stage}[{r.name}]": r.cluster_job for r in study.records() if r.outcome == "running"
    }


def is_whole(study: Study, whole: Study) -> None:
    """Everything is there, equal to the undisturbed run, and nothing is left to do."""
    assert differences(whole.contents(), study.contents()) == []
    assert study.house.planned() == {}


def finished_slides(study: Study) -> dict[str, int]:
    return study.slide_times("features/vit_tiny/*.h5")


def kept(study: Study, before: dict[str, int]) -> None:
    now = finished_slides(study)
    redone = [name for name, at in before.items() if now.get(name) != at]
    assert before, "the blow came before any slide was finished"
    assert not redone, f"computed again: {redone}"


def say(what: str, seconds: float, study: Study, since: float) -> None:
    print(f"\n{what}: {seconds:.0f} s, began {study.attempts(since)}")


def test_the_whole_workflow(whole: Study) -> None:
    page = (whole.results / "report.html").read_text()
    assert "shazam_v2" in page
    assert set(whole.attempts(0).values()) == {1}, "no job ran twice"
    assert whole.house.planned() == {}


def test_a_failing_slide_is_a_row_of_the_ledger(whole: Study) -> None:
    import pandas as pd

    ledger = pd.read_csv(whole.results / "ledger.csv")
    assert "failed" in set(ledger["status"])
    assert ledger["reason"].notna().all()


def test_never_more_gpu_jobs_than_gpus_and_on_different_ones(whole: Study) -> None:
    jobs = [r for r in whole.records() if r.stage in ("extraction", "training")]
    assert {r.devices for r in jobs} == {str(n) for n in range(GPUS)}
    assert most_at_once(jobs) == GPUS, "at some time both were in use, never more"
    for one, other in combinations(jobs, 2):
        if max(one.started, other.started) < min(one.ended, other.ended):
            assert one.devices != other.devices, f"{one.name} and {other.name}"
    others = [r for r in whole.records() if r not in jobs]
    assert {r.devices for r in others} == {""}, "a job that asks for no GPU sees none"


def test_a_job_that_dies_is_retried(study: Study, whole: Study) -> None:
    study.strike(*blow(study, "kill", 0))
    since = time.time()
    seconds = study.run(*MANIFESTS)
    assert study.struck() == 1
    assert study.attempts(since) == {JOB.format(0): 2, JOB.format(1): 1}
    say("a job that dies, and its retry", seconds, study, since)
    is_whole(study, whole)


def test_scancel(study: Study, whole: Study, cluster: Cluster) -> None:
    study.strike(*blow(study, "freeze", 0))
    since = time.time()
    process = study.start("--retries", "0", *MANIFESTS)
    study.wait(study.struck, "the blow")
    before = finished_slides(study)
    subprocess.run(["scancel", running(study)[JOB.format(0)]], check=True)
    assert process.wait(timeout=240) != 0
    first = time.time() - since
    assert "Error in rule extraction" in (study.house.path / "run.log").read_text()
    seconds = study.run("--retries", "0", *MANIFESTS)
    assert study.attempts(since) == {JOB.format(0): 2, JOB.format(1): 1}
    kept(study, before)
    say(f"scancel ({first:.0f} s until it is said), the same command again", seconds, study, since)
    is_whole(study, whole)


def test_a_node_that_crashes(study: Study, whole: Study, cluster: Cluster) -> None:
    study.strike(*blow(study, "freeze", 0, 1))
    since = time.time()
    process = study.start(*MANIFESTS)
    study.wait(lambda: study.struck() == 2, "the blows")
    before = finished_slides(study)
    assert len(cluster.crash()) == 2
    time.sleep(7)
    cluster.start_node()

    def ended() -> bool:
        cluster.begin_now()
        return process.poll() is not None

    study.wait(ended, "the run after the crash")
    assert process.returncode == 0
    assert study.attempts(since) == {JOB.format(0): 2, JOB.format(1): 2}
    kept(study, before)
    say("a node crashes and comes back", time.time() - since, study, since)
    is_whole(study, whole)


def test_the_time_limit(study: Study, whole: Study) -> None:
    study.strike(*blow(study, "freeze", 0))
    since = time.time()
    seconds = study.run(*MANIFESTS, "--set-resources", "extraction:runtime=attempt")
    assert study.attempts(since) == {JOB.format(0): 2, JOB.format(1): 1}
    say("a time limit of one minute, twice that at the second attempt", seconds, study, since)
    is_whole(study, whole)


def test_preemption(study: Study, whole: Study, cluster: Cluster) -> None:
    study.strike(*blow(study, "freeze", 0, 1))
    since = time.time()
    process = study.start(*MANIFESTS)
    study.wait(lambda: study.struck() == 2, "the blows")
    before = finished_slides(study)
    subprocess.run(
        ["sbatch", "--partition=urgent", f"--gpus={GPUS}", "--output=/dev/null", "--wrap=sleep 5"],
        check=True,
        capture_output=True,
    )

    def ended() -> bool:
        cluster.begin_now()
        return process.poll() is not None

    study.wait(ended, "the run after the preemption")
    assert process.returncode == 0
    assert study.attempts(since) == {JOB.format(0): 2, JOB.format(1): 2}
    kept(study, before)
    say("two jobs preempted and requeued", time.time() - since, study, since)
    is_whole(study, whole)


def test_kill_9_of_the_controller(study: Study, whole: Study, cluster: Cluster) -> None:
    """The jobs of the dead run are still there: without care, each would run twice."""
    study.strike(*blow(study, "freeze", 0, 1))
    since = time.time()
    process = study.start(*MANIFESTS)
    study.wait(lambda: study.struck() == 2, "the blows")
    before = finished_slides(study)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = set(cluster.jobs("RUNNING"))
    assert len(left) == 2, "the jobs go on without their controller"
    seconds = study.run(*MANIFESTS)
    assert not left & set(cluster.jobs())
    assert {cluster.state(job) for job in left} == {"CANCELLED"}
    assert study.attempts(since) == {JOB.format(0): 2, JOB.format(1): 2}
    kept(study, before)
    say("kill -9 of Snakemake, the same command again", seconds, study, since)
    is_whole(study, whole)


def test_ctrl_c_leaves_no_job_behind(study: Study, cluster: Cluster) -> None:
    study.strike(*blow(study, "freeze", 0, 1))
    process = study.start(*MANIFESTS)
    study.wait(lambda: study.struck() == 2, "the blows")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) != 0
    study.wait(lambda: not cluster.jobs(), "an empty queue", 30)
    assert not list((study.house.path / ".snakemake" / "locks").glob("*"))
