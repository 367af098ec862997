"""Section 6: what each stage did on each node, from the records that every attempt leaves."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from pipeline.accounting.job_records import JobRecord
from pipeline.report.results import Results
from pipeline.report.tables.cells import Cell, Column, Table, count, duration, fixed, number, text


@dataclasses.dataclass(frozen=True)
class Work:
    """What a job got through."""

    slides: int = 0
    tiles: int = 0


def table(results: Results, records: Sequence[JobRecord]) -> Table | None:
    """One row per stage (and teacher) and node; None where no attempt left a record."""
    groups: dict[tuple[str, str], list[JobRecord]] = defaultdict(list)
    for record in records:
        groups[stage_of(record), record.host].append(record)
    if not groups:
        return None
    done = work(results)
    return Table(
        caption="Every attempt, by stage and node",
        columns=[
            Column("stage"),
            Column("node"),
            Column("GPU"),
            Column("attempts", True),
            Column("failed", True, "ended with an error"),
            Column("killed", True, "started but never ended: time limit, crash, scancel, kill"),
            Column("time", True, "summed over the attempts that ended"),
            Column("slides/h", True, "per job; jobs that run at the same time do not add up"),
            Column("tiles/s", True),
            Column("GPU busy", True, "share of the time with work on the device, sampled"),
            Column("memory, MB", True, "largest resident set of an attempt"),
            Column("GPU memory, MB", True, "largest peak of an attempt"),
        ],
        rows=[
            _row(stage, host, group, done)
            for (stage, host), group in sorted(groups.items(), key=lambda item: _order(item[1]))
        ],
        read="A job that was retried counts each time; its slides count once, in the attempt "
        "that succeeded.",
        source=("jobs/",),
    )


def stage_of(record: JobRecord) -> str:
    """The stage, with the teachers for extraction, as the table of costs has it."""
    teacher = parts(record).get("teacher")
    return f"{record.stage}: {teacher}" if teacher else record.stage


def parts(record: JobRecord) -> dict[str, str]:
    """`chunk=3,teacher=uni2_h` as a mapping."""
    pairs = (part.split("=", 1) for part in record.name.split(",") if "=" in part)
    return {key: value for key, value in pairs}


def work(results: Results) -> Mapping[tuple[str, str], Work]:
    """(stage, chunk) -> slides and tiles that it got through."""
    ids, numbers = results.slides["slide_id"], results.slides["chunk"]
    chunk = {str(s): str(c) for s, c in zip(ids, numbers, strict=True)}
    stages = {"tiling": results.tiling}
    stages |= {teacher: found for teacher, found in results.features.items()}
    slides: Counter[tuple[str, str]] = Counter()
    tiles: Counter[tuple[str, str]] = Counter()
    for stage, found in stages.items():
        for record in found.values():
            if record.status == "ok" and record.slide_id in chunk:
                key = (stage, chunk[record.slide_id])
                slides[key] += 1
                tiles[key] += record.n_tiles
    return {key: Work(slides[key], tiles[key]) for key in slides}


def work_of(record: JobRecord, done: Mapping[tuple[str, str], Work]) -> Work:
    """What a job's chunk holds, for its first teacher: those of a group see the same tiles."""
    found = parts(record)
    stage = found.get("teacher", record.stage).split("+")[0]
    if "tiles" in found:  # of another scale: its tiles are not the cohort's
        return Work()
    return done.get((stage, found.get("chunk", "")), Work())


def _order(group: Sequence[JobRecord]) -> tuple[float, str]:
    return min(r.started for r in group), group[0].host


def _row(
    stage: str,
    host: str,
    group: Sequence[JobRecord],
    done: Mapping[tuple[str, str], Work],
) -> list[Cell]:
    ended = [r for r in group if r.seconds is not None]
    seconds = sum(r.seconds or 0.0 for r in ended)
    good = {r.name: r for r in ended if r.outcome == "ok"}
    slides = sum(work_of(r, done).slides for r in good.values())
    tiles = sum(work_of(r, done).tiles for r in good.values())
    busy = [(r.gpu_busy, r.seconds or 0.0) for r in ended if r.gpu_busy is not None]
    weight = sum(s for _, s in busy)
    share = sum(b * s for b, s in busy) / weight if weight else None
    failed = sum(r.outcome == "failed" for r in group)
    devices = sorted({r.device_name for r in group if r.device_name})
    return [
        text(stage),
        text(host),
        text(", ".join(devices)),
        count(len(group)),
        count(failed),
        count(len(group) - len(ended)),
        Cell(text(duration(seconds)).html, seconds),
        number(3600 * slides / seconds if slides and seconds else None, 0),
        number(tiles / seconds if tiles and seconds else None, 0),
        text("" if share is None else f"{fixed(100 * share, 0)} %"),
        number(max((r.memory_mb for r in ended if r.memory_mb), default=None), 0),
        number(max((r.gpu_memory_mb for r in ended if r.gpu_memory_mb), default=None), 0),
    ]
