"""What a run would cost, said before it starts: tiles, gigabytes, GPU-hours, hours on the clock.

Slide headers are read from a small, evenly spread sample; what cannot be known before the tissue is
found is an assumption, and the text says so.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from statistics import fmean

from pipeline.accounting import rates
from pipeline.accounting.costs import (
    GIGABYTE,
    Concurrency,
    Estimate,
    Pace,
    TeacherCost,
    gflop_per_tile,
    values_per_tile,
)
from pipeline.accounting.queueing import Chain, makespan
from pipeline.config.extraction import TeacherConfig
from pipeline.config.tiling import TilingConfig
from pipeline.config.whole import Config
from pipeline.encoders.registry import levels_of
from pipeline.encoders.slide_level.inputs import tile_teachers
from pipeline.encoders.tile_scales import groups as decodings
from pipeline.encoders.tile_scales import scale_of, scales
from pipeline.errors import SlideError
from pipeline.plan import words_cost
from pipeline.plan.cohort_plan import CohortPlan
from pipeline.runtime.progress import duration

SAMPLED_SLIDES = 16
ASSUMED_TISSUE_FRACTION = 0.3
BYTES_PER_VALUE = 2  # features are float16
BYTES_PER_COORDINATE = 8
ONE_GPU = Concurrency()
ON_A_GPU = rates.assumed(gpu=True)
USUAL_AREA = 4e8  # µm² of a slide, where none could be opened
FEW_SLIDES, MANY_SLIDES = 10, 100  # per chunk: start-up dominates, or a lost job costs much


@dataclasses.dataclass(frozen=True)
class Todo:
    """What of a run is still to be done.

    Attributes:
        tiling: chunks to be tiled.
        extraction: teacher, or teachers that share a decoding, joined by `+` -> chunks.
    """

    tiling: Set[int]
    extraction: Mapping[str, Set[int]]

    def __bool__(self) -> bool:
        return bool(self.tiling) or any(self.extraction.values())


def todo(jobs: Iterable[tuple[str, Mapping[str, str]]]) -> Todo:
    """The expensive part of a list of jobs.

    Args:
        jobs: (rule, its wildcards).
    """
    tiling: set[int] = set()
    extraction: dict[str, set[int]] = {}
    for rule, wildcards in jobs:
        if rule in ("tiling", "tiling_scale"):
            tiling.add(int(wildcards["chunk"]))
        elif rule == "extraction":
            extraction.setdefault(wildcards["teacher"], set()).add(int(wildcards["chunk"]))
    return Todo(tiling, extraction)


def estimate(
    config: Config,
    plan: CohortPlan,
    pace: Pace = ON_A_GPU,
    concurrency: Concurrency = ONE_GPU,
    root: Path | None = None,
    left: Todo | None = None,
) -> Estimate:
    """Estimate a run.

    Args:
        config: the config.
        plan: the cohort.
        pace: how fast jobs are.
        concurrency: what works at once.
        root: the cohort's results folder: what a preflight counted there goes before what the
            registry says.
        left: what is to be done; None: all.
    """
    groups = decodings(config)
    whole = frozenset(plan.chunks)
    left = left or Todo(whole, {"+".join(group): whole for group in groups})
    areas, sizes = _sample(config, plan)
    slides = sum(len(plan.members[chunk]) for chunk in _chunks(left))
    share = {
        teacher: sum(len(plan.members[c]) for c in left.extraction.get("+".join(group), ()))
        for group in groups
        for teacher in group
    }
    encoders = {n: t for n, t in tile_teachers(config).items() if t.source != "import"}
    known = areas and encoders
    tiles = _tiles(config.tiling, areas, slides) if known else None
    sections = {"": config.tiling, **scales(config)}
    per_slide = {n: _tiles(s, areas, 1) for n, s in sections.items()} if known else {}
    costs = tuple(
        _cost(
            name,
            facts,
            _times(per_slide.get(scale_of(config, name)), share[name]),
            levels_of(name, facts, config.extraction.levels),
            pace.tflops,
            root,
        )
        for name, facts in encoders.items()
    )
    decoded = sum(len(plan.members[c]) for chunks in left.extraction.values() for c in chunks)
    read = fmean(sizes) * decoded / GIGABYTE if sizes else None
    return Estimate(
        slides=slides,
        cases=len({r.case_id for chunk in _chunks(left) for r in plan.members[chunk]}),
        chunks=len(_chunks(left)),
        sampled=len(sizes),
        gigabytes_read=read,
        tiles=None if tiles is None else round(tiles),
        teachers=costs,
        pace=pace,
        concurrency=concurrency,
        wall_hours=_wall_hours(plan, left, costs, pace, areas, concurrency),
        tile_px=config.tiling.tile_px,
        target_mpp=config.tiling.target_mpp,
        further=words_cost.lines(config, None if tiles is None else round(tiles)),
    )


def text(found: Estimate) -> str:
    """The estimate as a few lines for the end of a dry-run."""
    lines = [
        "What this run would cost (a finished part costs nothing again):",
        f"  {found.slides} slides of {found.cases} cases in {found.chunks} chunks"
        + _chunk_advice(found.slides, found.chunks),
    ]
    if found.teachers:
        tiles = (
            "unknown: no slide file could be opened"
            if found.tiles is None
            else (
                f"about {found.tiles:,} of {found.tile_px} px at {found.target_mpp} µm/px, if "
                f"{ASSUMED_TISSUE_FRACTION:.0%} of a slide is tissue"
            )
        )
        lines.append(f"  tiles: {tiles}")
        if found.gigabytes_read is not None:
            lines.append(
                f"  read: about {found.gigabytes_read:,.1f} GB over all teachers "
                f"({found.sampled} slide headers sampled)"
            )
        width = max(len(t.name) for t in found.teachers)
        hours = "GPU-hours" if found.pace.gpu else "CPU hours"
        lines.append(f"  {'teacher':<{width}}  GFLOP/tile  {hours}  GB written")
        for teacher in found.teachers:
            lines.append(
                f"  {teacher.name:<{width}}  {_number(teacher.gflop_per_tile):>10}"
                f"  {_number(teacher.device_hours):>9}  {_number(teacher.gigabytes):>10}"
            )
        known = [t.device_hours for t in found.teachers if t.device_hours is not None]
        if known:
            lines.append(
                f"  together {_number(sum(known))} {hours} at {found.pace.tflops:.3g} TFLOP/s "
                f"sustained, {found.gigabytes_written or 0:,.1f} GB of features (float16; no tile "
                f"images)"
            )
        if found.wall_hours is not None:
            with_queue = found.concurrency.queue_hours
            waiting = f", each job queued {60 * with_queue:g} min" if with_queue else ""
            lines.append(
                f"  wall time to the last feature about {duration(3600 * found.wall_hours)} with "
                f"{found.concurrency.gpus} {'GPU' if found.pace.gpu else 'extraction'} job(s) and "
                f"{found.concurrency.jobs} others at once{waiting}"
            )
        told = "measured: " + found.pace.measured if found.pace.measured else "rates are assumed"
        lines.append(f"  {told}{'' if found.pace.gpu else '; no GPU was found'}")
        if len(known) < len(found.teachers):
            lines.append("  (-: no slide known yet, or a network without a preflight yet)")
    return "\n".join([*lines, *found.further])


def room(found: Estimate, folder: Path) -> str:
    """Whether the features will fit where the results go, as a line; empty where that is unknown.

    Args:
        found: the estimate.
        folder: the results folder, which need not exist yet.
    """
    written = found.gigabytes_written
    if written is None:
        return ""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / GIGABYTE
    verdict = "" if written < free else "NOT ENOUGH ROOM: "
    return f"  {verdict}{written:,.1f} GB of features to write, {free:,.1f} GB free in {there}"


def _chunk_advice(slides: int, chunks: int) -> str:
    """A chunk is one job: too small and start-up dominates, too large and a lost one costs much."""
    per_chunk = slides / max(1, chunks)
    wanted = max(1, round(slides / 40))
    if per_chunk > MANY_SLIDES or (per_chunk < FEW_SLIDES and chunks > 2 * wanted):
        return f" ({per_chunk:,.0f} a chunk; cohort.chunks: {wanted} would make it about 40)"
    return ""


def _chunks(left: Todo) -> set[int]:
    return set(left.tiling).union(*left.extraction.values())


def _times(each: float | None, number: int) -> int | None:
    return None if each is None else round(each * number)


def _wall_hours(
    plan: CohortPlan,
    left: Todo,
    costs: tuple[TeacherCost, ...],
    pace: Pace,
    areas: list[float],
    concurrency: Concurrency,
) -> float | None:
    """From the first tiling job to the last feature, chunk by chunk through the queue."""
    if not left or any(cost.device_hours is None for cost in costs):
        return None
    hours = {cost.name: cost.device_hours or 0.0 for cost in costs}
    tiling = pace.tiling_hours(fmean(areas) if areas else USUAL_AREA)
    chains = []
    for chunk in sorted(_chunks(left)):
        slides = len(plan.members[chunk])
        then = []
        for group, chunks in left.extraction.items():
            if chunk in chunks:
                share = slides / sum(len(plan.members[c]) for c in chunks)
                work = share * sum(hours[teacher] for teacher in group.split("+"))
                then.append(pace.start_hours + work)
        first = pace.start_hours + slides * tiling if chunk in left.tiling else 0.0
        chains.append(Chain(first=first, then=tuple(then)))
    return makespan(chains, concurrency.jobs, concurrency.gpus, concurrency.queue_hours)


def _number(value: float | None) -> str:
    """Two figures of what is small, else one after the point."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if value >= 1 or value == 0 else f"{value:.2g}"


def _tiles(tiling: TilingConfig, areas: list[float], slides: int) -> float:
    """Tiles over all slides, from the areas of some of them in µm²."""
    step = (tiling.tile_px - tiling.overlap_px) * tiling.target_mpp
    per_slide = [area * ASSUMED_TISSUE_FRACTION / step**2 for area in areas]
    if tiling.max_tiles:
        per_slide = [min(n, tiling.max_tiles) for n in per_slide]
    return fmean(per_slide) * slides


def _sample(config: Config, plan: CohortPlan) -> tuple[list[float], list[int]]:
    """Areas in µm² and sizes in bytes of some slides, spread evenly over the cohort."""
    if config.cohort.source == "synthetic":
        side = fmean(config.cohort.synthetic.slide_px) * 0.5
        return [side**2] * len(plan.rows), []
    from pipeline.slides.mpp import find_scale
    from pipeline.slides.slide import open_slide

    rows = [row for row in plan.rows if row.path]
    stride = max(1, math.ceil(len(rows) / SAMPLED_SLIDES))
    areas, sizes = [], []
    for row in rows[::stride]:
        try:
            with open_slide(row.path, config.tiling.scene) as slide:
                width, height = slide.level_dimensions[0]
                scale = find_scale(slide.properties, (width, height), row.mpp, config.tiling)
                areas.append(width * height * scale.mpp**2)
                sizes.append(Path(row.path).stat().st_size)
        except (SlideError, OSError):
            continue
    return areas, sizes


def _cost(
    name: str,
    facts: TeacherConfig,
    tiles: int | None,
    levels: Sequence[str],
    tflops: float,
    root: Path | None,
) -> TeacherCost:
    gflop = gflop_per_tile(name, facts, root)
    values = values_per_tile(name, facts, levels, root)
    hours = gigabytes = None
    if tiles is not None and values is not None:
        gigabytes = tiles * (values * BYTES_PER_VALUE + BYTES_PER_COORDINATE) / GIGABYTE
    if tiles is not None and gflop is not None:
        hours = tiles * gflop / (tflops * 1e3) / 3600
    return TeacherCost(name, gflop, hours, gigabytes)
