"""What a run would cost, said before it starts: tiles, gigabytes, GPU-hours, hours on the clock.

Slide headers are read from a small, evenly spread sample; what cannot be known before the tissue is
found is an assumption, and the text says so.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from pipeline.accounting.costs import (
    GIGABYTE,
    Concurrency,
    Estimate,
    TeacherCost,
    gflop_per_tile,
    values_per_tile,
)
from pipeline.accounting.queueing import Chain, makespan
from pipeline.config.extraction import TeacherConfig
from pipeline.config.tiling import TilingConfig
from pipeline.config.whole import Config
from pipeline.encoders.tile_scales import groups as decodings
from pipeline.encoders.tile_scales import scale_of, scales
from pipeline.errors import SlideError
from pipeline.plan.cohort_plan import CohortPlan

SAMPLED_SLIDES = 16
ASSUMED_TISSUE_FRACTION = 0.3
BYTES_PER_VALUE = 2  # features are float16
BYTES_PER_COORDINATE = 8
DEVICE_TFLOPS = 100.0
ONE_GPU = Concurrency()
# A job on a cluster starts Snakemake twice, then torch, then puts a model on the device.
JOB_START_HOURS = 1.5 / 60
TILING_SLIDE_HOURS = 0.5 / 60
FEW_SLIDES, MANY_SLIDES = 10, 100  # per chunk: start-up dominates, or a lost job costs much


def estimate(
    config: Config,
    plan: CohortPlan,
    device_tflops: float = DEVICE_TFLOPS,
    concurrency: Concurrency = ONE_GPU,
    root: Path | None = None,
) -> Estimate:
    """Estimate a run.

    Args:
        config: the config.
        plan: the cohort.
        device_tflops: what a GPU sustains on these networks, in TFLOP/s.
        concurrency: what works at once.
        root: the cohort's results folder: what a preflight counted there goes before what the
            registry says.
    """
    areas, sizes = _sample(config, plan)
    slides = len(plan.rows)
    encoders = {n: t for n, t in config.extraction.teachers.items() if t.source != "import"}
    known = areas and encoders
    tiles = _tiles(config.tiling, areas, slides) if known else None
    sections = {"": config.tiling, **scales(config)}
    counts = {name: _tiles(s, areas, slides) for name, s in sections.items()} if known else {}
    costs = tuple(
        _cost(
            name,
            facts,
            counts.get(scale_of(config, name)),
            config.extraction.levels,
            device_tflops,
            root,
        )
        for name, facts in encoders.items()
    )
    groups = decodings(config)
    read = fmean(sizes) * slides * len(groups) / GIGABYTE if sizes else None
    return Estimate(
        slides=slides,
        cases=len({row.case_id for row in plan.rows}),
        chunks=len(plan.chunks),
        sampled=len(sizes),
        gigabytes_read=read,
        tiles=tiles,
        teachers=costs,
        device_tflops=device_tflops,
        concurrency=concurrency,
        wall_hours=_wall_hours(plan, groups, costs, concurrency),
        tile_px=config.tiling.tile_px,
        target_mpp=config.tiling.target_mpp,
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
        lines.append(f"  {'teacher':<{width}}  GFLOP/tile  GPU-hours  GB written")
        for teacher in found.teachers:
            lines.append(
                f"  {teacher.name:<{width}}  {_number(teacher.gflop_per_tile):>10}"
                f"  {_number(teacher.gpu_hours):>9}  {_number(teacher.gigabytes):>10}"
            )
        known = [t.gpu_hours for t in found.teachers if t.gpu_hours is not None]
        if known:
            lines.append(
                f"  together {sum(known):,.1f} GPU-hours at {found.device_tflops:g} TFLOP/s "
                f"sustained, {found.gigabytes_written or 0:,.1f} GB of features (float16; no tile "
                f"images)"
            )
        if found.wall_hours is not None:
            with_queue = found.concurrency.queue_hours
            waiting = f", each job queued {60 * with_queue:g} min" if with_queue else ""
            lines.append(
                f"  wall time to the last feature about {found.wall_hours:,.1f} h with "
                f"{found.concurrency.gpus} GPU job(s) and {found.concurrency.jobs} others at once"
                f"{waiting}"
            )
        if len(known) < len(found.teachers):
            lines.append("  (-: no slide known yet, or a network without a preflight yet)")
    return "\n".join(lines)


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


def _wall_hours(
    plan: CohortPlan,
    groups: list[tuple[str, ...]],
    costs: tuple[TeacherCost, ...],
    concurrency: Concurrency,
) -> float | None:
    """From the first tiling job to the last feature, chunk by chunk through the queue."""
    hours = {cost.name: cost.gpu_hours for cost in costs}
    if not groups or any(hours[teacher] is None for group in groups for teacher in group):
        return None
    slides = len(plan.rows)
    chains = []
    for chunk in plan.chunks:
        share = len(plan.members[chunk]) / slides
        chains.append(
            Chain(
                first=JOB_START_HOURS + len(plan.members[chunk]) * TILING_SLIDE_HOURS,
                then=tuple(
                    JOB_START_HOURS + share * sum(hours[t] or 0.0 for t in group)
                    for group in groups
                ),
            )
        )
    return makespan(chains, concurrency.jobs, concurrency.gpus, concurrency.queue_hours)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _tiles(tiling: TilingConfig, areas: list[float], slides: int) -> int:
    """Tiles over all slides, from the areas of some of them in µm²."""
    step = (tiling.tile_px - tiling.overlap_px) * tiling.target_mpp
    per_slide = [area * ASSUMED_TISSUE_FRACTION / step**2 for area in areas]
    if tiling.max_tiles:
        per_slide = [min(n, tiling.max_tiles) for n in per_slide]
    return round(fmean(per_slide) * slides)


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
