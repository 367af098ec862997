"""What a run would cost, said before it starts: tiles, gigabytes, GPU-hours.

Slide headers are read from a small, evenly spread sample; what cannot be known before the tissue is
found is an assumption, and the text says so.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from statistics import fmean

from pipeline.config import Config, TeacherConfig, TilingConfig
from pipeline.errors import SlideError
from pipeline.planning import CohortPlan
from pipeline.scales import scale_of, scales

SAMPLED_SLIDES = 16
ASSUMED_TISSUE_FRACTION = 0.3
BYTES_PER_VALUE = 2  # features are float16
BYTES_PER_COORDINATE = 8
GIGABYTE = 1e9


@dataclasses.dataclass(frozen=True)
class TeacherCost:
    """One teacher's share; None where nothing is known without building the model."""

    name: str
    gflop_per_tile: float | None
    gpu_hours: float | None
    gigabytes: float | None


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run would do.

    Attributes:
        slides, cases: how many.
        sampled: how many slide headers were read.
        gigabytes_read: size of the slide files, once per teacher.
        tiles: expected over all slides; None where no slide could be sampled.
    """

    slides: int
    cases: int
    chunks: int
    sampled: int
    gigabytes_read: float | None
    tiles: int | None
    teachers: tuple[TeacherCost, ...]
    device_tflops: float
    gpus: int
    tile_px: int
    target_mpp: float


def estimate(
    config: Config, plan: CohortPlan, device_tflops: float = 100.0, gpus: int = 1
) -> Estimate:
    """Estimate a run.

    Args:
        config: the config.
        plan: the cohort.
        device_tflops: what a GPU sustains on these networks, in TFLOP/s.
        gpus: GPUs that work at once.
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
            len(config.extraction.levels),
            device_tflops,
        )
        for name, facts in encoders.items()
    )
    read = fmean(sizes) * slides * len(encoders) / GIGABYTE if sizes else None
    return Estimate(
        slides=slides,
        cases=len({row.case_id for row in plan.rows}),
        chunks=len(plan.chunks),
        sampled=len(sizes),
        gigabytes_read=read,
        tiles=tiles,
        teachers=costs,
        device_tflops=device_tflops,
        gpus=gpus,
        tile_px=config.tiling.tile_px,
        target_mpp=config.tiling.target_mpp,
    )


def text(found: Estimate) -> str:
    """The estimate as a few lines for the end of a dry-run."""
    lines = [
        "What this run would cost (a finished part costs nothing again):",
        f"  {found.slides} slides of {found.cases} cases in {found.chunks} chunks",
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
                f"  together {sum(known):,.1f} GPU-hours, {sum(known) / found.gpus:,.1f} h on "
                f"{found.gpus} GPU(s) that sustain {found.device_tflops:g} TFLOP/s each"
            )
        if len(known) < len(found.teachers):
            lines.append("  (-: not in the registry, or no slide known yet)")
    return "\n".join(lines)


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
            with open_slide(row.path) as slide:
                width, height = slide.level_dimensions[0]
                scale = find_scale(slide.properties, (width, height), row.mpp, config.tiling)
                areas.append(width * height * scale.mpp**2)
                sizes.append(Path(row.path).stat().st_size)
        except (SlideError, OSError):
            continue
    return areas, sizes


def _cost(
    name: str, facts: TeacherConfig, tiles: int | None, levels: int, tflops: float
) -> TeacherCost:
    """A vision transformer costs two FLOPs per parameter and token, attention itself aside."""
    from pipeline.encoders import registry

    if facts.source != "registry":
        return TeacherCost(name, None, None, None)
    row = registry.resolve(facts.model or name)
    gflop = hours = gigabytes = None
    if row.patch:
        side = (facts.input_px or row.crop) // row.patch
        gflop = 2 * row.params * (side**2 + row.tokens) / 1e9
    if tiles is not None:
        size = tiles * (row.dim * levels * BYTES_PER_VALUE + BYTES_PER_COORDINATE)
        gigabytes = size / GIGABYTE
        if gflop is not None:
            hours = tiles * gflop / (tflops * 1e3) / 3600
    return TeacherCost(name, gflop, hours, gigabytes)
