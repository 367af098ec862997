"""Regions of a TIFF's levels from the tiles or strips that they touch, decoded one by one.

The pixels are those of OpenSlide (tests hold that), at a fifth of its time: it paints each tile
onto its canvas with a blending operator that costs several times what decoding the tile does.
"""

from __future__ import annotations

import collections
import threading

import numpy as np
import tifffile

from pipeline.slides.slide import Image, on_white

CACHE_BYTES = 2**26


class Blocks:
    """The pixels of some pages of an open TIFF.

    Safe to be read from several threads: decoding happens outside the lock.

    Args:
        file: the file, which belongs to this object from now on.
        levels: for each pyramid level its page, or three pages of one channel each.
    """

    def __init__(self, file: tifffile.TiffFile, levels: list[list[tifffile.TiffPage]]) -> None:
        self._file = file
        self._levels = levels
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[tuple[int, int, int], Image] = (
            collections.OrderedDict()
        )
        self._cached = 0

    def read(self, left: int, top: int, level: int, w: int, h: int) -> Image:
        """uint8 (h, w, 3) from (left, top), in pixels of the level; white outside it.

        Raises:
            Exception: of whatever kind, where a block cannot be decoded.
        """
        page = self._levels[level][0]
        width, height = page.imagewidth, page.imagelength
        across, down = (
            (page.tilewidth, page.tilelength) if page.is_tiled else (width, page.rowsperstrip)
        )
        result = np.full((h, w, 3), 255, np.uint8)
        x0, x1 = max(left, 0), min(left + w, width)
        y0, y1 = max(top, 0), min(top + h, height)
        if x0 >= x1 or y0 >= y1:
            return result
        columns, rows = -(-width // across), -(-height // down)
        for row in range(y0 // down, (y1 - 1) // down + 1):
            for column in range(x0 // across, (x1 - 1) // across + 1):
                block = self._block(level, row, column, columns, rows)
                bx, by = column * across, row * down
                sx0, sx1 = max(x0, bx), min(x1, bx + block.shape[1])
                sy0, sy1 = max(y0, by), min(y1, by + block.shape[0])
                result[sy0 - top : sy1 - top, sx0 - left : sx1 - left] = block[
                    sy0 - by : sy1 - by, sx0 - bx : sx1 - bx
                ]
        return result

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._cache.clear()

    def _block(self, level: int, row: int, column: int, columns: int, rows: int) -> Image:
        """One decoded tile or strip, from the cache if it was read lately."""
        key = (level, row, column)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        index = row * columns + column
        planes = self._levels[level]
        if len(planes) == 1 and planes[0].planarconfig == 2:
            parts = [self._segment(planes[0], index + k * columns * rows) for k in range(3)]
            block = np.concatenate(parts, axis=-1)
        elif len(planes) == 1:
            block = self._segment(planes[0], index)
        else:
            block = np.concatenate([self._segment(page, index) for page in planes], axis=-1)
        image = on_white(block) if block.shape[-1] == 4 else np.ascontiguousarray(block[..., :3])
        with self._lock:
            self._cache[key] = image
            self._cached += image.nbytes
            while self._cached > CACHE_BYTES and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        return image

    def _segment(self, page: tifffile.TiffPage, index: int) -> Image:
        """A decoded segment of one page: uint8 (rows, columns, samples)."""
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = None
        if count:
            with self._lock:
                self._file.filehandle.seek(offset)
                data = self._file.filehandle.read(count)
            if len(data) < count:
                raise ValueError(f"the file ends inside block {index}")
        pixels, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        if pixels is None:
            return np.full((shape[1], shape[2], shape[3]), 255, np.uint8)
        pixels = pixels[0]
        return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
