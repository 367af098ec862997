"""The direct way to the pixels of a slide: its own compressed blocks, each decoded once.

A block is decoded when the first tile needs it and kept until the last has been served. With tiles
sorted by (y, x) that is about one row of blocks. On a CPU libjpeg-turbo and its like decode in
threads; on a GPU nvJPEG decodes a batch's blocks at once, and pixels never cross the bus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch

from pipeline.errors import SlideError
from pipeline.slides.base import Slide
from pipeline.slides.tiff_blocks import Blocks, Layout
from pipeline.tile_reading.decoders import decode_streams
from pipeline.tile_reading.grid import Grid, level_corners

T = TypeVar("T")
PARTS = 4  # parts of a batch per thread


class Needs:
    """Which blocks the tiles of a grid touch, and how many tiles still need each.

    Args:
        layout: how the level is cut into blocks.
        grid: the slide's tiles.
    """

    def __init__(self, layout: Layout, grid: Grid) -> None:
        self.layout = layout
        self.side = grid.side
        self.corners = level_corners(grid, 0, len(grid.coords))
        self.left: dict[int, int] = {}
        for index in range(len(self.corners)):
            for number in self.touched(index):
                self.left[number] = self.left.get(number, 0) + 1

    def touched(self, index: int) -> list[int]:
        """The blocks below a tile."""
        x, y = map(int, self.corners[index])
        return self.layout.touched(x, y, self.side, self.side)

    def users(self, start: int, stop: int) -> dict[int, list[int]]:
        """Block -> the tiles start…stop - 1 that touch it, by their place in the batch."""
        found: dict[int, list[int]] = {}
        for place in range(stop - start):
            for number in self.touched(start + place):
                found.setdefault(number, []).append(place)
        return found

    def reaches_out(self, index: int) -> bool:
        """Whether a tile has pixels outside the slide."""
        x, y = self.corners[index]
        width, height = self.layout.size
        return bool(x < 0 or y < 0 or x + self.side > width or y + self.side > height)

    def place(self, index: int, number: int) -> tuple[slice, ...]:
        """Where a tile and a block meet: rows and columns of the tile, of the block."""
        x, y = map(int, self.corners[index])
        return self.layout.place(number, x, y, self.side, self.side)


class BlockSource:
    """Tiles cut from a level's own blocks, decoded in threads on the CPU.

    Args:
        slide: an open slide that has blocks; belongs to this object from now on.
        grid: the slide's tiles.
        workers: decoding threads.
    """

    kind = "blocks"
    device: torch.device | None = None

    def __init__(self, slide: Slide, grid: Grid, workers: int) -> None:
        self._slide = slide
        self._blocks = _blocks(slide)
        self._level = grid.level
        self._needs = Needs(self._blocks.layout(grid.level), grid)
        self._kept: dict[int, np.ndarray | SlideError] = {}
        # Decoding into memory that was used before saves a page fault per 4 kB, 40 % of the time.
        self._free: list[np.ndarray] = []
        self._workers = max(1, workers)
        self._pool = ThreadPoolExecutor(self._workers)

    def read(self, start: int, stop: int, out: np.ndarray) -> dict[int, SlideError]:
        """See `pipeline.tile_reading.reader.Source.read`."""
        needs = self._needs
        users = needs.users(start, stop)
        for place in range(stop - start):
            if needs.reaches_out(start + place):
                out[place] = 255

        def serve(number: int) -> SlideError | None:
            """Decode and hand out at once, while the pixels are in the processor's cache."""
            pixels = self._kept.pop(number, None)
            if pixels is None:
                pixels = self._decode(number)
            needs.left[number] -= len(users[number])
            if needs.left[number] > 0:
                self._kept[number] = pixels
            if isinstance(pixels, SlideError):
                return pixels
            for place in users[number]:
                rows, columns, block_rows, block_columns = needs.place(start + place, number)
                out[place][rows, columns] = pixels[block_rows, block_columns]
            if needs.left[number] <= 0:
                self._free.append(pixels)
            return None

        wanted = sorted(users)
        bad: dict[int, SlideError] = {}
        for number, error in zip(wanted, self._share(serve, wanted), strict=True):
            if error is not None:
                bad |= dict.fromkeys(users[number], error)
        return bad

    def close(self) -> None:
        """See `pipeline.tile_reading.reader.Source.close`."""
        self._pool.shutdown(cancel_futures=True)
        self._kept.clear()
        self._slide.close()

    def _share(self, work: Callable[[int], T], items: Sequence[int]) -> list[T]:
        """Work through the items in threads, in parts, since a thread's turn has its price."""
        step = max(1, -(-len(items) // (PARTS * self._workers)))
        parts = [items[i : i + step] for i in range(0, len(items), step)]
        done = self._pool.map(lambda part: [work(item) for item in part], parts)
        return [result for part in done for result in part]

    def _decode(self, number: int) -> np.ndarray | SlideError:
        out = None
        if self._blocks.is_jpeg(self._level):
            width, height = self._needs.layout.block
            out = self._free.pop() if self._free else np.empty((height, width, 3), np.uint8)
        try:
            return self._blocks.decode(self._level, number, out)
        except Exception as error:  # decoders raise anything on damaged data
            return _undecodable(self._slide, number, error)


class DeviceSource:
    """Tiles cut from a level's own JPEG blocks, decoded on the device they are needed on.

    nvJPEG and libjpeg-turbo differ in rounding.

    Args:
        slide: an open slide whose level is plain JPEG; belongs to this object from now on.
        grid: the slide's tiles.
        device: a GPU; or the CPU, which decodes the same streams.
    """

    kind = "device"

    def __init__(self, slide: Slide, grid: Grid, device: torch.device) -> None:
        self._slide = slide
        self._blocks = _blocks(slide)
        self._level = grid.level
        self._needs = Needs(self._blocks.layout(grid.level), grid)
        self._kept: dict[int, torch.Tensor | SlideError] = {}
        self.device: torch.device | None = device
        self._place = device

    def read(self, start: int, stop: int, out: torch.Tensor) -> dict[int, SlideError]:
        """See `pipeline.tile_reading.reader.Source.read`; `out` is on the device."""
        needs = self._needs
        users = needs.users(start, stop)
        out.fill_(255)  # where a tile reaches out of the slide
        self._kept |= self._decode([n for n in sorted(users) if n not in self._kept])
        bad: dict[int, SlideError] = {}
        for number, places in users.items():
            pixels = self._kept[number]
            needs.left[number] -= len(places)
            if needs.left[number] <= 0:
                del self._kept[number]
            if isinstance(pixels, SlideError):
                bad |= dict.fromkeys(places, pixels)
                continue
            for place in places:
                rows, columns, block_rows, block_columns = needs.place(start + place, number)
                out[place][rows, columns] = pixels[block_rows, block_columns]
        return bad

    def close(self) -> None:
        """See `pipeline.tile_reading.reader.Source.close`."""
        self._kept.clear()
        self._slide.close()

    def _decode(self, numbers: Sequence[int]) -> dict[int, torch.Tensor | SlideError]:
        """Blocks as uint8 (rows, columns, 3) on the device."""
        found: dict[int, torch.Tensor | SlideError] = {}
        streams: dict[int, bytes] = {}
        for number in numbers:
            try:
                streams[number] = self._blocks.jpeg(self._level, number)
            except (OSError, ValueError) as error:
                found[number] = _undecodable(self._slide, number, error)
        pixels = decode_streams(list(streams.values()), self._place)
        for number, block in zip(streams, pixels, strict=True):
            bad = ValueError("not a JPEG stream")
            found[number] = _undecodable(self._slide, number, bad) if block is None else block
        return found


def _blocks(slide: Slide) -> Blocks:
    if slide.blocks is None:
        raise ValueError(f"{slide.path}: has no blocks")
    return slide.blocks


def _undecodable(slide: Slide, number: int, error: Exception) -> SlideError:
    said = " ".join(str(error).split())
    return SlideError(
        f"{slide.path.name}: compressed block {number} cannot be decoded ({said})", "unreadable"
    )
