"""Section 6: what was planned before the run, and what the run took."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.accounting import rates
from pipeline.accounting.costs import GIGABYTE, Concurrency, Estimate, Pace
from pipeline.accounting.job_records import JobRecord
from pipeline.errors import UserError
from pipeline.report.results import Results
from pipeline.report.sections.nodes import parts
from pipeline.report.tables.cells import Cell, Column, Table, number, text

# The estimate of this cohort as a dry-run makes it, for so much at once.
Planner = Callable[[Concurrency, Pace], Estimate]

CORES = 2  # of an extraction job, where a profile gives it no more
UP_TO_FEATURES = ("tiling", "extraction")


def table(results: Results, records: Sequence[JobRecord], planner: Planner | None) -> Table | None:
    """Plan against reality; None where the run left no records or the plan cannot be made again.

    The plan is made from the config and the slides, as a dry-run makes it, for as many jobs at once
    as there really were.

    Args:
        results: the opened results.
        records: of all attempts at jobs.
        planner: makes the plan for so many jobs at once; None: it cannot be made.
    """
    found = [r for r in records if r.stage in UP_TO_FEATURES and r.seconds is not None]
    if not found or planner is None:
        return None
    extraction = [r for r in found if r.stage == "extraction"]
    at_once = Concurrency(
        gpus=most_at_once(extraction),
        jobs=most_at_once([r for r in found if r.stage == "tiling"]),
    )
    try:
        planned = planner(at_once, _assumed(extraction))
    except (UserError, OSError):
        return None
    rate = rates.measured(results.config, results.root, planned.pace.gpu)
    rows = [
        _row("slides", planned.slides, len(results.slides), 0),
        _row("tiles", planned.tiles, _tiles(results), 0),
        _row("features, GB", planned.gigabytes_written, _written(results), 3),
        *_hours(planned, found),
        _row("wall time to the last feature, h", planned.wall_hours, busy_hours(found), 2),
        _row("sustained, TFLOP/s", planned.pace.tflops, rate.tflops if rate else None, 1),
    ]
    return Table(
        caption="Planned and actual time",
        columns=[
            Column("what"),
            Column("planned", True),
            Column("actual", True),
            Column("actual / planned", True),
        ],
        rows=rows,
        read="The plan reads the headers of a sample of the slides. It assumes that 30 % of a "
        "slide is tissue, and the rates of a usual GPU, or of two cores where there was no GPU. "
        "Actual: the sum over all attempts, failed ones included; wall time without the times in "
        "which nothing ran.",
        source=("jobs/",),
    )


def _assumed(extraction: Sequence[JobRecord]) -> Pace:
    """What a dry-run reckons with on such machines as it really ran on, before it has measured."""
    return rates.assumed(
        gpu=any(r.device_name for r in extraction),
        cluster=any(r.cluster_job for r in extraction),
        cores=CORES,
    )


def most_at_once(records: Sequence[JobRecord]) -> int:
    """How many of the attempts ran at the same time, at most; at least 1."""
    edges = sorted(
        [(r.started, 1) for r in records] + [(r.ended, -1) for r in records if r.ended is not None]
    )
    running = most = 0
    for _, step in edges:
        running += step
        most = max(most, running)
    return max(1, most)


def busy_hours(records: Sequence[JobRecord]) -> float:
    """Hours during which at least one of the attempts ran."""
    total, until = 0.0, float("-inf")
    for start, end in sorted((r.started, r.ended) for r in records if r.ended is not None):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 3600


def _hours(planned: Estimate, records: Sequence[JobRecord]) -> list[list[Cell]]:
    """A row per job's group of teachers: teachers of a group have their time together."""
    expected = {t.name: t.device_hours for t in planned.teachers}
    groups = {parts(r).get("teacher", "") for r in records if r.stage == "extraction"}
    rows = []
    for group in sorted(groups):
        members = [expected.get(teacher) for teacher in group.split("+")]
        known = None if None in members else sum(m for m in members if m is not None)
        mine = [r for r in records if parts(r).get("teacher") == group]
        real = sum(r.seconds or 0.0 for r in mine) / 3600
        unit = "GPU-hours" if any(r.device_name for r in mine) else "hours on a CPU"
        rows.append(_row(f"{unit} of {group}", known, real, 2))
    return rows


def _tiles(results: Results) -> int | None:
    found = [r.n_tiles for r in results.tiling.values() if r.status == "ok"]
    return sum(found) if found else None


def _written(results: Results) -> float | None:
    """Gigabytes of the feature files of the config's teachers that were made here, not imported."""
    teachers = results.config.extraction.teachers
    paths = [
        results.root / record.path
        for teacher, found in results.features.items()
        if teacher in teachers and teachers[teacher].source != "import"
        for record in found.values()
        if record.status == "ok"
    ]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return sum(sizes) / GIGABYTE if sizes else None


def _row(what: str, planned: float | None, real: float | None, digits: int) -> list[Cell]:
    ratio = real / planned if planned and real is not None else None
    return [text(what), number(planned, digits), number(real, digits), number(ratio, 2)]
