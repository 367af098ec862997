"""Time limits that jobs ask a scheduler for: by what is in the chunk, and more at each attempt.

Too short loses the job's start-up and its place in the queue (a finished slide is kept); too long
waits in the queue for a gap that size. These are meant to be two to five times what a GPU of 2017
needs; a profile that gives `runtime` itself goes before them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from pipeline.accounting.costs import gflop_per_tile
from pipeline.config.whole import Config
from pipeline.encoders.slide_level.inputs import tile_teachers

START_MINUTES = 20
SLOW_DEVICE_TFLOPS = 20.0  # what a V100 or a T4 sustains of its peak on these networks
SLOW_READER_TILES = 60.0  # tiles per second through one decoding of a remote slide
ASSUMED_GFLOP = 100.0  # of a network that the registry does not know: a ViT-L
TILING_SLIDE_MINUTES = 2
STEP = 10  # limits in tens of minutes, so that like jobs ask alike


def tiling_minutes(slides: int, attempt: int) -> int:
    """The limit of a chunk's tiling, in minutes.

    Args:
        slides: in the chunk.
        attempt: 1 at first.
    """
    return _round(attempt * (START_MINUTES + slides * TILING_SLIDE_MINUTES))


def extraction_minutes(
    config: Config, teachers: Sequence[str], manifest: Path, attempt: int
) -> int:
    """The limit of a chunk's extraction, in minutes.

    Args:
        config: the config.
        teachers: those that the job runs, in one decoding.
        manifest: the chunk's tiling manifest, which says how many tiles there are; the results
            folder around it has the teachers' preflights.
        attempt: 1 at first.

    Raises:
        FileNotFoundError: the chunk is not tiled yet; Snakemake asks again once it is.
    """
    tiles = _tiles(manifest)
    root = manifest.parents[2]
    gflop = sum(
        gflop_per_tile(name, tile_teachers(config)[name], root) or ASSUMED_GFLOP
        for name in teachers
    )
    seconds = tiles * max(gflop / (SLOW_DEVICE_TFLOPS * 1e3), 1 / SLOW_READER_TILES)
    return _round(attempt * (START_MINUTES + seconds / 60))


def _tiles(manifest: Path) -> int:
    """Tiles of all slides; 0 for a damaged manifest, of which the job itself will say so."""
    try:
        slides = json.loads(manifest.read_text())["slides"]
        return sum(int(slide["facts"].get("n_tiles", 0)) for slide in slides)
    except (ValueError, KeyError, TypeError):
        return 0


def _round(minutes: float) -> int:
    return STEP * math.ceil(minutes / STEP)
