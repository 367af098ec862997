"""Attempts by stage and node, and the plan beside the run."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pipeline.accounting.costs import Concurrency, Estimate, Pace
from pipeline.accounting.job_records import JobRecord
from pipeline.plan.cohort_plan import cohort_plan
from pipeline.plan.estimate import estimate
from pipeline.report import results, stage
from pipeline.report.sections import nodes, planned_vs_actual, provenance, timings
from pipeline.report.tables.cells import Table
from tests.report.conftest import small_config


def attempt(root: Path, job: str, **changes: Any) -> JobRecord:
    """Write a record of `stage[name]`."""
    name, _, parts = job.rstrip("]").partition("[")
    fields = {
        "stage": name, "name": parts, "host": "n1", "pid": 1, "cluster_job": "", "devices": "",
        "started": 0.0, "ended": 60.0, "memory_mb": 500.0, "outcome": "ok",
    }  # fmt: skip
    made = JobRecord(**(fields | changes))
    path = root / "jobs" / name / f"{parts}-{made.started}-{made.host}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(made)))
    return made


def cells(table: Table) -> list[dict[str, Any]]:
    labels = [column.label for column in table.columns]
    return [dict(zip(labels, (cell.key for cell in row), strict=True)) for row in table.rows]


@pytest.fixture
def root(small: Path) -> Path:
    attempt(small, "tiling[chunk=0]", started=0.0, ended=60.0)
    attempt(small, "tiling[chunk=1]", started=10.0, ended=None, outcome="running")
    attempt(small, "tiling[chunk=1]", started=100.0, ended=160.0, host="n2")
    teacher = next(iter(small_config().extraction.teachers))
    gpu = {"devices": "0", "device_name": "H200", "gpu_memory_mb": 9000.0}
    job = f"extraction[chunk=0,teacher={teacher}]"
    attempt(small, job, started=200.0, ended=210.0, outcome="failed", gpu_busy=0.1, **gpu)
    attempt(small, job, started=300.0, ended=390.0, gpu_busy=0.9, **gpu)
    return small


def planner(at_once: Concurrency, pace: Pace) -> Estimate:
    plan = cohort_plan(small_config(), Path.cwd(), check=False)
    return estimate(small_config(), plan, pace=pace, concurrency=at_once)


def test_failures_and_killed_attempts_are_counted_where_they_happened(root: Path) -> None:
    opened = results.read(small_config(), root)
    first, second, extraction = cells(timings.section(opened).nodes)
    assert (first["node"], first["attempts"], first["killed"], first["failed"]) == ("n1", 2, 1, 0)
    assert (second["node"], second["attempts"], second["killed"]) == ("n2", 1, 0)
    assert (extraction["attempts"], extraction["failed"], extraction["time"]) == (2, 1, 100.0)
    assert extraction["GPU"] == "h200"
    # Weighted by time: (0.1 * 10 + 0.9 * 90) / 100.
    assert extraction["GPU busy"] == "82 %"
    assert extraction["GPU memory, MB"] == 9000


def test_work_counts_once_where_it_ended_well(root: Path) -> None:
    opened = results.read(small_config(), root)
    done = nodes.work(opened)
    first, second, _ = cells(timings.section(opened).nodes)
    assert first["slides/h"] == done["tiling", "0"].slides * 60
    assert second["tiles/s"] == pytest.approx(done["tiling", "1"].tiles / 60)


def test_the_plan_stands_beside_the_run(root: Path) -> None:
    opened = results.read(small_config(), root)
    rows = {row["what"]: row for row in cells(timings.section(opened, planner).planned_vs_actual)}
    tiles = sum(r.facts["n_tiles"] for r in opened.tiling.values() if r.status == "ok")
    assert rows["tiles"]["actual"] == tiles
    assert rows["tiles"]["planned"] > 0
    assert rows["tiles"]["actual / planned"] == pytest.approx(tiles / rows["tiles"]["planned"])
    (hours,) = (row for what, row in rows.items() if what.startswith("gpu-hours of"))
    assert hours["actual"] == pytest.approx(100 / 3600), "the failed attempt is paid for too"
    # 0-60, 100-160, 200-210 and 300-390 seconds.
    wall = rows["wall time to the last feature, h"]["actual"]
    assert wall == pytest.approx((60 + 60 + 10 + 90) / 3600)


def test_overlap_and_gaps() -> None:
    def at(start: float, end: float) -> JobRecord:
        return JobRecord("tiling", "", "n", 1, "", "", started=start, ended=end)

    records = [at(0, 10), at(5, 20), at(6, 7), at(40, 50)]
    assert planned_vs_actual.most_at_once(records) == 3
    assert planned_vs_actual.busy_hours(records) == pytest.approx(30 / 3600)
    assert planned_vs_actual.most_at_once([]) == 1


@pytest.mark.usefixtures("undrawn")
def test_without_records_there_are_no_tables_and_with_them_the_page_has_both(root: Path) -> None:
    stage.run(config=small_config(), root=root, planner=planner)
    page = (root / "report.html").read_text()
    assert "Every attempt, by stage and node" in page
    assert "Planned and actual time" in page
    for path in (root / "jobs").rglob("*.json"):
        path.unlink()
    section = timings.section(results.read(small_config(), root), planner)
    assert section.nodes is None
    assert section.planned_vs_actual is None


def test_libraries_of_jobs_stand_with_those_of_the_page(small: Path) -> None:
    attempt(small, "tiling[chunk=0]", libraries={"torch": "1.0.0"})
    section = provenance.section(results.read(small_config(), small))
    rows = {row["what"]: row["version"] for row in cells(section.versions)}
    assert rows["torch"] == f"1.0.0, {metadata.version('torch')}"
    assert rows["numpy"] == metadata.version("numpy")
