"""Tiles of a slide as uint8 arrays, in the order of their coordinates.

Three ways. Where the level is a plain grid of compressed blocks, those are decoded directly, each
once for all the tiles that it touches (`pipeline.tile_reading.blocks`), on the CPU or, if they are
JPEG, on the GPU. Otherwise runs of neighbouring tiles are read through the Slide interface and cut
up. On the CPU both ways give the same pixels.

A tile starts at the pixel of its level that is nearest to its level-0 coordinates. Pixels outside
the slide are white; a region that cannot be decoded is an error of that tile, never a white tile.
"""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from pipeline.errors import SlideError
from pipeline.slides.base import Slide
from pipeline.slides.slide import open_slide
from pipeline.tile_reading.blocks import BlockSource, DeviceSource
from pipeline.tile_reading.grid import Grid, level_corners

RUN_PIXELS = 4096  # longest side of a region read at once
# Mean absolute difference up to which a GPU's decoder is taken to agree with the CPU's: rounding,
# and another way to enlarge subsampled chroma.
SAME_PIXELS = 2.0


class Source(Protocol):
    """Where tiles come from.

    Attributes:
        kind: `blocks`, `device` or `regions`.
        device: where it puts pixels; None is the host's memory.
    """

    kind: str
    device: torch.device | None

    def read(self, start: int, stop: int, out: Any) -> dict[int, SlideError]:
        """Fill `out` (uint8, (stop - start, side, side, 3)) with the tiles start…stop - 1.

        Args:
            start, stop: which tiles.
            out: an array, or a tensor on the source's device if it has one.

        Returns:
            the tiles that cannot be read, by their place in `out`; their pixels mean nothing.
        """
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def open_source(
    path: Path,
    grid: Grid,
    workers: int,
    direct: bool = True,
    device: torch.device | None = None,
) -> Source:
    """Open a slide for reading its tiles.

    Args:
        path: the slide.
        grid: its tiles.
        workers: decoding threads.
        direct: whether compressed blocks may be decoded directly.
        device: where JPEG blocks are to be decoded, if the decoder there agrees with the CPU's on
            a tile of this slide; None is the CPU.

    Raises:
        SlideError: the slide cannot be opened.
    """
    slide = open_slide(path, grid.scene)
    try:
        if grid.level >= len(slide.level_dimensions):
            raise SlideError(
                f"{path.name}: has no level {grid.level}; the file changed since tiling", "changed"
            )
        if direct and slide.blocks is not None:
            if device and slide.blocks.is_jpeg(grid.level) and agrees(slide, grid, device):
                return DeviceSource(slide, grid, device)
            return BlockSource(slide, grid, workers)
    except BaseException:
        slide.close()
        raise
    slide.close()
    return RegionSource(path, grid, workers)


def agrees(slide: Slide, grid: Grid, device: torch.device) -> bool:
    """Whether the device's decoder gives a tile in the middle the pixels that the CPU gives it.

    Args:
        slide: the open slide.
        grid: its tiles.
        device: whose decoder is asked.
    """
    if not len(grid.coords):
        return True
    middle = len(grid.coords) // 2
    one = dataclasses.replace(grid, coords=grid.coords[middle : middle + 1])
    tile = torch.empty((1, grid.side, grid.side, 3), dtype=torch.uint8, device=device)
    try:
        for error in DeviceSource(slide, one, device).read(0, 1, tile).values():
            raise error  # the tile or the decoder is broken: the CPU will say which
        left, top = level_corners(one, 0, 1)[0]
        x, y = round(left * grid.downsample), round(top * grid.downsample)
        same = slide.read_region(x, y, grid.level, grid.side, grid.side)
    except (SlideError, ImportError, RuntimeError) as error:  # the last two: of the GPU's library
        warnings.warn(f"{slide.path.name}: not decoded on the GPU ({error})", stacklevel=2)
        return False
    off = float(np.abs(tile[0].cpu().numpy().astype(np.int16) - same).mean())
    if off > SAME_PIXELS:
        warnings.warn(
            f"{slide.path.name}: not decoded on the GPU, which is off by {off:.1f} grey levels",
            stacklevel=2,
        )
    return off <= SAME_PIXELS


class RegionSource:
    """Tiles through the Slide interface, in runs of neighbours along a row.

    Every thread has its own handle of the slide and its own columns of it, so that the rows below
    find the reader's cache warm and an error in one thread does not disturb another.

    Args:
        path: the slide's file.
        grid: its tiles.
        workers: threads that read.
    """

    kind = "regions"
    device: torch.device | None = None

    def __init__(self, path: Path, grid: Grid, workers: int) -> None:
        self._path = path
        self._grid = grid
        self._pools = [ThreadPoolExecutor(1) for _ in range(max(1, workers))]
        self._local = threading.local()
        self._open: list[Slide] = []

    def read(self, start: int, stop: int, out: np.ndarray) -> dict[int, SlideError]:
        """See `Source.read`."""
        futures: list[Future[dict[int, SlideError]]] = []
        width = max(RUN_PIXELS, self._grid.side)
        for first, last in _runs(self._grid, start, stop):
            column = int(self._grid.coords[first, 0] / self._grid.downsample) // width
            pool = self._pools[column % len(self._pools)]
            futures.append(pool.submit(self._read_run, first, last, start, out))
        bad: dict[int, SlideError] = {}
        for future in futures:
            bad |= future.result()
        return bad

    def close(self) -> None:
        """See `Source.close`."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        for slide in self._open:
            slide.close()

    def _read_run(
        self, first: int, last: int, start: int, out: np.ndarray
    ) -> dict[int, SlideError]:
        slide = getattr(self._local, "slide", None)
        if slide is None:
            slide = self._local.slide = open_slide(self._path, self._grid.scene)
            self._open.append(slide)
        try:
            self._cut(slide, first, last, start, out)
            return {}
        except SlideError as error:
            if last - first == 1:
                return {first - start: error}
        bad = {}
        for index in range(first, last):
            try:
                self._cut(slide, index, index + 1, start, out)
            except SlideError as error:
                bad[index - start] = error
        return bad

    def _cut(self, slide: Slide, first: int, last: int, start: int, out: np.ndarray) -> None:
        grid = self._grid
        corners = level_corners(grid, first, last)
        left, top = int(corners[0, 0]), int(corners[0, 1])
        width = int(corners[-1, 0]) - left + grid.side
        x, y = round(left * grid.downsample), round(top * grid.downsample)
        region = slide.read_region(x, y, grid.level, width, grid.side)
        for index, (column, _) in enumerate(corners, start=first):
            place = int(column) - left
            out[index - start] = region[:, place : place + grid.side]


def _runs(grid: Grid, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Neighbouring tiles of one row: (first, last + 1), cut at fixed columns of RUN_PIXELS."""
    corners = level_corners(grid, start, stop)
    width = max(RUN_PIXELS, grid.side)
    first = 0
    for i in range(1, len(corners) + 1):
        if (
            i == len(corners)
            or corners[i, 1] != corners[i - 1, 1]
            or corners[i, 0] - corners[i - 1, 0] > grid.side
            or corners[i, 0] // width != corners[first, 0] // width
        ):
            yield start + first, start + i
            first = i
