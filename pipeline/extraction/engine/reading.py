"""The reader's part of the engine: slides from the queue to batches of tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from pipeline.errors import SlideError
from pipeline.extraction.engine.channel import Channel
from pipeline.extraction.engine.messages import Batch, Settings, SlideToRead
from pipeline.files.identity import check_unchanged
from pipeline.runtime.machine_errors import is_machines
from pipeline.tile_reading.reader import open_source

CPU = torch.device("cpu")


def read_slides(
    next_job: Callable[[], SlideToRead | None],
    to: Channel[Batch],
    settings: Settings,
    device: torch.device,
) -> None:
    """Read slides until there are no more, and pass on their tiles in batches.

    Args:
        next_job: gives the next slide; None when there is none.
        to: where the batches go.
        settings: batch size, threads, and what becomes of a tile that cannot be read.
        device: where the tiles are to be.
    """
    while (job := next_job()) is not None:
        error = None
        try:
            for batch in read_batches(job, settings, device):
                to.put(batch)
        except SlideError as problem:
            if is_machines(problem):
                raise
            _check_slide(job, thorough=True)
            error = problem
        to.put(Batch(job, np.empty(0, np.int64), None, error=error))
    to.close()


def read_batches(
    job: SlideToRead, settings: Settings, device: torch.device = CPU
) -> Iterator[Batch]:
    """A slide's tiles in batches, in pinned memory for a GPU, or on it if it decodes them.

    Args:
        job: the slide.
        settings: batch size, threads, and what becomes of a tile that cannot be read.
        device: where the tiles are to be.

    Raises:
        SlideError: the slide cannot be opened, or, with `on_bad_tile: fail`, a tile not be read.
        MachineError: the slide is not the file that was tiled, or it changed while it was read.
    """
    grid = job.grid
    there = device if settings.decode_on_gpu else None
    _check_slide(job)
    source = open_source(job.path, grid, settings.workers, settings.direct, there)
    pinned = device.type == "cuda" and source.device is None
    try:
        for start in range(0, len(grid.coords), settings.batch_size):
            stop = min(start + settings.batch_size, len(grid.coords))
            shape = (stop - start, grid.side, grid.side, 3)
            tiles = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned, device=source.device)
            bad = source.read(start, stop, tiles if source.device else tiles.numpy())
            rows = np.arange(start, stop)
            if bad:
                if settings.on_bad_tile == "fail":
                    index, error = min(bad.items())
                    x, y = grid.coords[start + index]
                    raise SlideError(f"tile at ({x}, {y}): {error.reason}", error.kind)
                keep = np.array([i for i in range(stop - start) if i not in bad], np.int64)
                tiles, rows = tiles[torch.from_numpy(keep)], rows[keep]
                if any(is_machines(error) for error in bad.values()):
                    _check_slide(job, thorough=True)
            yield Batch(job, rows, tiles, dropped=len(bad))
    finally:
        source.close()
    _check_slide(job)


def _check_slide(job: SlideToRead, thorough: bool = False) -> None:
    """Tiles and pixels must be of the same file."""
    if job.grid.slide:
        check_unchanged(job.path, job.grid.slide, thorough)
