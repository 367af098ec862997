"""The direct way to the pixels of a slide: its own compressed JPEG tiles.

tifffile says where they are and libjpeg-turbo decodes them, in threads, each once for all the tiles
that it touches; a decoded one is kept from the first tile that needs it to the last. With tiles
sorted by (y, x) that is about one row of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import tifffile

from pipeline.errors import SlideError
from pipeline.extraction.grid import Grid
from pipeline.slides.slide import Slide

T = TypeVar("T")
PARTS = 4  # parts of a batch per thread

# Formats whose levels are plain grids: no overlapping or missing tiles, no offset between levels.
PLAIN_VENDORS = ("aperio", "generic-tiff")

# How libjpeg names what TIFF calls RGB and YCbCr.
COLOUR_SPACES = {tifffile.PHOTOMETRIC.RGB: 2, tifffile.PHOTOMETRIC.YCBCR: 3}


def find_jpeg_level(slide: Slide, level: int) -> Any | None:
    """The TIFF page of a level, if it is a plain grid of 8-bit RGB or YCbCr JPEG tiles.

    Returns:
        the tifffile page, whose file is closed, or None.
    """
    if slide.properties.get("openslide.vendor") not in PLAIN_VENDORS:
        return None
    try:
        with tifffile.TiffFile(slide.path) as file:
            size = slide.level_dimensions[level]
            pages = [p for p in file.pages if _is_plain(p, size)]
            if len(pages) != 1:
                return None
            # tifffile reads these when first asked for: ask while the file is open.
            for lazy in ("jpegtables", "dataoffsets", "databytecounts"):
                getattr(pages[0], lazy)
            return pages[0]
    except (OSError, ValueError, KeyError, IndexError, AttributeError, tifffile.TiffFileError):
        return None


def _is_plain(page: Any, size: tuple[int, int]) -> bool:
    return (
        (page.imagewidth, page.imagelength) == size
        and bool(page.is_tiled)
        and page.compression == tifffile.COMPRESSION.JPEG
        and page.photometric in COLOUR_SPACES
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and min(page.databytecounts, default=0) > 0
    )


class JpegSource:
    """Tiles cut from a level's own JPEG tiles.

    Args:
        path: the slide.
        page: from `find_jpeg_level`.
        grid: the slide's tiles.
        workers: decoding threads.
    """

    kind = "jpeg"

    def __init__(self, path: Path, page: Any, grid: Grid, workers: int) -> None:
        self._name = path.name
        self._page = page
        self._side = grid.side
        self._size = (page.imagewidth, page.imagelength)
        self._cell = (page.tilewidth, page.tilelength)
        self._columns = -(-page.imagewidth // page.tilewidth)
        self._corners = np.rint(grid.coords / grid.downsample).astype(np.int64)
        self._needs = _count(self._corners, grid.side, self._size, self._cell, self._columns)
        self._cells: dict[int, np.ndarray | SlideError] = {}
        # Decoding into memory that was used before saves a page fault per 4 kB, 40 % of the time.
        self._free: list[np.ndarray] = []
        self._workers = max(1, workers)
        self._pool = ThreadPoolExecutor(self._workers)
        self._file = os.open(path, os.O_RDONLY)

    def read(self, start: int, stop: int, out: np.ndarray) -> dict[int, SlideError]:
        """See `pipeline.extraction.reader.Source.read`."""
        users: dict[int, list[int]] = {}
        for place in range(stop - start):
            for cell in self._touched(start + place):
                users.setdefault(cell, []).append(place)
            if self._reaches_out(start + place):
                out[place] = 255

        def serve(cell: int) -> SlideError | None:
            """Decode and hand out at once, while the pixels are in the processor's cache."""
            pixels = self._cells.pop(cell, None)
            if pixels is None:
                pixels = self._decode(cell)
            self._needs[cell] -= len(users[cell])
            if isinstance(pixels, SlideError):
                if self._needs[cell] > 0:
                    self._cells[cell] = pixels
                return pixels
            for place in users[cell]:
                self._paste(start + place, cell, pixels, out[place])
            if self._needs[cell] > 0:
                self._cells[cell] = pixels
            else:
                self._free.append(pixels)
            return None

        wanted = sorted(users)
        bad: dict[int, SlideError] = {}
        for cell, error in zip(wanted, self._share(serve, wanted), strict=True):
            if error is not None:
                bad |= dict.fromkeys(users[cell], error)
        return bad

    def peek(self, index: int, out: np.ndarray) -> bool:
        """Read one tile into `out[0]` without counting it as read; True if it is broken."""
        if self._reaches_out(index):
            out[0] = 255
        for cell in self._touched(index):
            pixels = self._decode(cell)
            if isinstance(pixels, SlideError):
                return True
            self._paste(index, cell, pixels, out[0])
            self._free.append(pixels)
        return False

    def close(self) -> None:
        """See `pipeline.extraction.reader.Source.close`."""
        self._pool.shutdown(cancel_futures=True)
        self._cells.clear()
        os.close(self._file)

    def _touched(self, index: int) -> list[int]:
        x, y = self._corners[index]
        return _cells_of(int(x), int(y), self._side, self._size, self._cell, self._columns)

    def _share(self, work: Callable[[int], T], items: Sequence[int]) -> list[T]:
        """Work through the items in threads, in parts, since a thread's turn has its price."""
        step = max(1, -(-len(items) // (PARTS * self._workers)))
        parts = [items[i : i + step] for i in range(0, len(items), step)]
        done = self._pool.map(lambda part: [work(item) for item in part], parts)
        return [result for part in done for result in part]

    def _decode(self, cell: int) -> np.ndarray | SlideError:
        page = self._page
        length = page.databytecounts[cell]
        try:
            pixels = self._free.pop()
        except IndexError:
            pixels = np.empty((self._cell[1], self._cell[0], 3), np.uint8)
        try:
            data = os.pread(self._file, length, page.dataoffsets[cell])
            if len(data) < length:
                raise ValueError("the file ends before it")
            imagecodecs.jpeg8_decode(
                data,
                tables=page.jpegtables,
                colorspace=COLOUR_SPACES[page.photometric],
                outcolorspace=COLOUR_SPACES[tifffile.PHOTOMETRIC.RGB],
                out=pixels,
            )
        except Exception as error:  # decoders raise anything on damaged data
            return SlideError(
                f"{self._name}: compressed tile {cell} cannot be decoded ({error})", "unreadable"
            )
        return pixels

    def _reaches_out(self, index: int) -> bool:
        """Whether a tile has pixels outside the slide."""
        x, y = self._corners[index]
        width, height = self._size
        return bool(x < 0 or y < 0 or x + self._side > width or y + self._side > height)

    def _paste(self, index: int, cell: int, pixels: np.ndarray, out: np.ndarray) -> None:
        """Copy what a tile has of a compressed one."""
        x, y = map(int, self._corners[index])
        left = cell % self._columns * self._cell[0]
        top = cell // self._columns * self._cell[1]
        x0, y0 = max(x, left), max(y, top)
        x1 = min(x + self._side, left + self._cell[0], self._size[0])
        y1 = min(y + self._side, top + self._cell[1], self._size[1])
        out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels[y0 - top : y1 - top, x0 - left : x1 - left]


def _cells_of(
    x: int, y: int, side: int, size: tuple[int, int], cell: tuple[int, int], columns: int
) -> list[int]:
    """The compressed tiles that a tile touches, by number."""
    across = range(max(x, 0) // cell[0], -(-min(x + side, size[0]) // cell[0]))
    down = range(max(y, 0) // cell[1], -(-min(y + side, size[1]) // cell[1]))
    return [row * columns + column for row in down for column in across]


def _count(
    corners: np.ndarray, side: int, size: tuple[int, int], cell: tuple[int, int], columns: int
) -> dict[int, int]:
    """How many tiles touch each compressed tile."""
    needs: dict[int, int] = {}
    for x, y in corners.tolist():
        for number in _cells_of(x, y, side, size, cell, columns):
            needs[number] = needs.get(number, 0) + 1
    return needs
