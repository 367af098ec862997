"""Section 6: what each stage cost, where, and what the plan had said."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections import defaultdict
from pathlib import Path

from pipeline.accounting.job_records import read_records
from pipeline.report.figures import charts
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import Results
from pipeline.report.sections import nodes, planned_vs_actual
from pipeline.report.tables.cells import (
    DASH,
    Cell,
    Column,
    Table,
    count,
    duration,
    number,
    plural,
    text,
)


@dataclasses.dataclass(frozen=True)
class TimedJob:
    """One benchmark record: seconds, peak resident memory (MB), CPU seconds; NaN where unknown."""

    rule: str
    name: str
    seconds: float
    max_rss: float
    cpu_seconds: float


@dataclasses.dataclass(frozen=True)
class TimingsSection:
    absent: str
    total: str
    table: Table | None
    drawing: Drawing | None
    nodes: Table | None = None
    planned_vs_actual: Table | None = None


def section(results: Results, planner: planned_vs_actual.Planner | None = None) -> TimingsSection:
    """Build the section; without benchmark files it says so, without a planner it has no plan."""
    jobs = read_jobs(results.root / "benchmarks")
    records = read_records(results.root)
    by_node = nodes.table(results, records)
    against_plan = planned_vs_actual.table(results, records, planner)
    if not jobs:
        return TimingsSection(
            "No benchmark files were found: the stages were not run by the workflow here, or their "
            "records were deleted.",
            "", None, None, by_node, against_plan,
        )  # fmt: skip
    by_rule: dict[str, list[TimedJob]] = defaultdict(list)
    for job in jobs:
        by_rule[job.rule].append(job)
    order = sorted(by_rule, key=lambda rule: -sum(j.seconds for j in by_rule[rule]))
    work = _work(results)
    rows = [_row(rule, by_rule[rule], work) for rule in order]
    total = sum(j.seconds for j in jobs)
    cpu = sum(j.cpu_seconds for j in jobs if math.isfinite(j.cpu_seconds))
    table = Table(
        caption="Cost per rule",
        columns=[
            Column("rule"),
            Column("jobs", True),
            Column("total", True),
            Column("longest job", True),
            Column("processor time", True, "CPU seconds of all threads"),
            Column("peak memory, MB", True, "largest resident set of a job"),
            Column("work"),
            Column("tiles/s", True),
            Column("slides/h", True),
        ],
        rows=rows,
        read="Throughput divides the work by the summed job time, so jobs that run at the same "
        "time do not inflate it.",
        source=("benchmarks/",),
    )
    bars = [
        (
            rule,
            sum(j.seconds for j in by_rule[rule]),
            duration(sum(j.seconds for j in by_rule[rule])),
        )
        for rule in order[:14]
    ]
    return TimingsSection(
        absent="",
        total=f"{plural(len(jobs), 'job')} took {duration(total)} of job time and {duration(cpu)} "
        f"of processor time.",
        table=table,
        drawing=charts.stages("timings-rules", bars),
        nodes=by_node,
        planned_vs_actual=against_plan,
    )


def read_jobs(folder: Path) -> list[TimedJob]:
    """All benchmark records under `folder`; the first folder below it names the rule.

    Extraction is told apart by teacher, the second folder. A file that is not a benchmark table is
    left out; repeats of a job are separate records.
    """
    jobs = []
    for path in sorted(folder.rglob("*.tsv")):
        inside = path.relative_to(folder)
        rule = inside.parts[0] if len(inside.parts) > 1 else inside.stem
        if rule.startswith("extraction") and len(inside.parts) > 2:
            rule = f"extraction: {inside.parts[1]}"
        with path.open(newline="") as handle:
            for row in csv.DictReader(handle, delimiter="\t"):
                seconds = _float(row.get("s"))
                if math.isfinite(seconds):
                    jobs.append(
                        TimedJob(
                            rule=rule,
                            name=str(inside.with_suffix("")),
                            seconds=seconds,
                            max_rss=_float(row.get("max_rss")),
                            cpu_seconds=_float(row.get("cpu_time")),
                        )
                    )
    return jobs


def _float(value: str | None) -> float:
    try:
        return float(value or "nan")
    except ValueError:
        return math.nan


def _work(results: Results) -> dict[str, tuple[int, int]]:
    """What the stages that go through slides got through: rule -> (slides, tiles)."""
    groups = {"tiling": results.tiling}
    groups |= {f"extraction: {teacher}": found for teacher, found in results.features.items()}
    return {
        rule: (
            sum(r.status == "ok" for r in found.values()),
            sum(r.n_tiles for r in found.values() if r.status == "ok"),
        )
        for rule, found in groups.items()
    }


def _row(rule: str, jobs: list[TimedJob], work: dict[str, tuple[int, int]]) -> list[Cell]:
    seconds = sum(j.seconds for j in jobs)
    memory = [j.max_rss for j in jobs if math.isfinite(j.max_rss)]
    cpu = [j.cpu_seconds for j in jobs if math.isfinite(j.cpu_seconds)]
    slides, tiles = work.get(rule, (0, 0))
    longest = max(j.seconds for j in jobs)
    return [
        text(rule),
        count(len(jobs)),
        Cell(text(duration(seconds)).html, seconds),
        Cell(text(duration(longest)).html, longest),
        Cell(text(duration(sum(cpu)) if cpu else DASH).html, sum(cpu)),
        number(max(memory) if memory else math.nan, 0),
        text(f"{plural(slides, 'slide')}, {plural(tiles, 'tile')}" if slides else ""),
        number(tiles / seconds if tiles and seconds else math.nan, 0),
        number(3600 * slides / seconds if slides and seconds else math.nan, 0),
    ]
