"""Regions of a TIFF's levels from the tiles or strips that they touch, decoded one by one.

The pixels are those of OpenSlide (tests hold that), at a fifth of its time: it paints each tile
onto its canvas with a blending operator that costs several times what decoding the tile does.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import threading

import cv2
import imagecodecs
import numpy as np
import tifffile

from pipeline.slides.pixels import Image, on_white

CACHE_BYTES = 2**26
# How libjpeg names what TIFF calls RGB and YCbCr.
# Decoders of these give RGB whatever the file's colours are called.
_JPEG_FAMILY = {6, 7, 34892, 33007}
_JPEG2000 = {33003, 33004, 33005, 34712}
JPEG_SPACES = {tifffile.PHOTOMETRIC.RGB: 2, tifffile.PHOTOMETRIC.YCBCR: 3}
_START, _END = b"\xff\xd8", b"\xff\xd9"
# Adobe's marker: the only one by which a JPEG stream itself says that it is RGB or YCbCr.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a level is cut into blocks, numbered along rows.

    Attributes:
        size: (width, height) of the level in pixels.
        block: (width, height) of a block; the last of a row or column may reach beyond the level.
        columns, rows: how many blocks.
    """

    size: tuple[int, int]
    block: tuple[int, int]
    columns: int
    rows: int

    def touched(self, x: int, y: int, width: int, height: int) -> list[int]:
        """The blocks that a rectangle touches.

        Args:
            x: leftmost pixel of the rectangle, at the level.
            y: uppermost pixel.
            width: in pixels.
            height: in pixels.
        """
        across = range(
            max(x, 0) // self.block[0], -(-min(x + width, self.size[0]) // self.block[0])
        )
        down = range(max(y, 0) // self.block[1], -(-min(y + height, self.size[1]) // self.block[1]))
        return [row * self.columns + column for row in down for column in across]

    def place(self, number: int, x: int, y: int, width: int, height: int) -> tuple[slice, ...]:
        """Where a block and a rectangle meet: rows and columns of the rectangle, of the block.

        Args:
            number: of the block.
            x: leftmost pixel of the rectangle, at the level.
            y: uppermost pixel.
            width: in pixels.
            height: in pixels.
        """
        left = number % self.columns * self.block[0]
        top = number // self.columns * self.block[1]
        x0, y0 = max(x, left), max(y, top)
        x1 = min(x + width, left + self.block[0], self.size[0])
        y1 = min(y + height, top + self.block[1], self.size[1])
        return (
            *(slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)),
            *(slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)),
        )


class Blocks:
    """The pixels of some pages of an open TIFF.

    Safe to be read from several threads.

    Args:
        file: the file, which belongs to this object from now on.
        levels: for each pyramid level its page, or three pages of one channel each.
    """

    def __init__(self, file: tifffile.TiffFile, levels: list[list[tifffile.TiffPage]]) -> None:
        self._file = file
        self._levels = levels
        self._descriptor = file.filehandle.fileno()
        self._lock = threading.Lock()
        self._cache: collections.OrderedDict[tuple[int, int], Image] = collections.OrderedDict()
        self._cached = 0
        for planes in levels:
            for page in planes:  # tifffile reads these when first asked for: not from many threads
                for lazy in ("jpegtables", "dataoffsets", "databytecounts", "decode"):
                    getattr(page, lazy)
        self._layouts = [_layout(planes[0]) for planes in levels]
        self._jpeg = [len(planes) == 1 and _is_jpeg(planes[0]) for planes in levels]

    def layout(self, level: int) -> Layout:
        """How a level is cut."""
        return self._layouts[level]

    def is_jpeg(self, level: int) -> bool:
        """Whether a level's blocks are plain JPEG: 8-bit RGB or YCbCr, none missing."""
        return self._jpeg[level]

    def read(self, left: int, top: int, level: int, w: int, h: int) -> Image:
        """uint8 (h, w, 3) from (left, top), in pixels of the level; white outside it.

        Args:
            left: leftmost pixel.
            top: uppermost pixel.
            level: number of the level.
            w: width in pixels.
            h: height in pixels.

        Raises:
            Exception: of whatever kind, where a block cannot be decoded.
        """
        layout = self.layout(level)
        result = np.full((h, w, 3), 255, np.uint8)
        for number in layout.touched(left, top, w, h):
            rows, columns, block_rows, block_columns = layout.place(number, left, top, w, h)
            result[rows, columns] = self._kept(level, number)[block_rows, block_columns]
        return result

    def decode(self, level: int, number: int, out: Image | None = None) -> Image:
        """One block, read and decoded: uint8 (rows, columns, 3), perhaps beyond the level's edge.

        Args:
            level: the pyramid level.
            number: which block.
            out: memory for a whole block, which is used if the decoder can.

        Raises:
            Exception: of whatever kind, where it cannot be decoded.
        """
        planes = self._levels[level]
        page = planes[0]
        if self.is_jpeg(level):
            return imagecodecs.jpeg8_decode(
                self._bytes(page, number),
                tables=page.jpegtables,
                colorspace=JPEG_SPACES[page.photometric],
                outcolorspace=JPEG_SPACES[tifffile.PHOTOMETRIC.RGB],
                out=out,
            )
        if len(planes) == 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
            layout = self.layout(level)
            apart = layout.columns * layout.rows
            parts = [self._segment(page, number + k * apart) for k in range(3)]
            block = np.concatenate(parts, axis=-1)
        elif len(planes) == 1:
            block = self._segment(page, number)
        else:
            block = np.concatenate([self._segment(page, number) for page in planes], axis=-1)
        if page.photometric == tifffile.PHOTOMETRIC.YCBCR and page.compression not in _JPEG_FAMILY:
            return cv2.cvtColor(block[..., (0, 2, 1)], cv2.COLOR_YCrCb2RGB)
        return on_white(block) if block.shape[-1] == 4 else np.ascontiguousarray(block[..., :3])

    def jpeg(self, level: int, number: int) -> bytes:
        """One block of a JPEG level as a stream that any decoder understands.

        In a TIFF the tables and the colour space stand outside the streams.

        Raises:
            ValueError: the stream is damaged.
        """
        page = self._levels[level][0]
        data = self._bytes(page, number)
        if not data.startswith(_START):
            raise ValueError(f"block {number} is not a JPEG stream")
        tables = (page.jpegtables or _START + _END).removeprefix(_START).removesuffix(_END)
        transform = b"\x01" if page.photometric == tifffile.PHOTOMETRIC.YCBCR else b"\x00"
        return _START + _ADOBE + transform + tables + data.removeprefix(_START)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._cache.clear()

    def _kept(self, level: int, number: int) -> Image:
        """One decoded block, from the cache if it was read lately."""
        key = (level, number)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        image = self.decode(level, number)
        with self._lock:
            self._cache[key] = image
            self._cached += image.nbytes
            while self._cached > CACHE_BYTES and len(self._cache) > 1:
                self._cached -= self._cache.popitem(last=False)[1].nbytes
        return image

    def _bytes(self, page: tifffile.TiffPage, index: int) -> bytes:
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        data = os.pread(self._descriptor, count, offset)
        if len(data) < count:
            raise ValueError(f"the file ends inside block {index}")
        return data

    def _segment(self, page: tifffile.TiffPage, index: int) -> Image:
        """A decoded segment of one page: uint8 (rows, columns, samples)."""
        data = self._bytes(page, index) if page.databytecounts[index] else None
        if data is not None and page.is_subsampled and page.compression in _JPEG2000:
            # tifffile refuses subsampled colours, which this decoder has brought to full size.
            return np.asarray(imagecodecs.jpeg2k_decode(data), np.uint8)
        pixels, _, shape = page.decode(data, index, jpegtables=page.jpegtables)
        if pixels is None:
            return np.full((shape[1], shape[2], shape[3]), 255, np.uint8)
        pixels = pixels[0]
        return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def _layout(page: tifffile.TiffPage) -> Layout:
    size = page.imagewidth, page.imagelength
    block = (page.tilewidth, page.tilelength) if page.is_tiled else (size[0], page.rowsperstrip)
    return Layout(size, block, -(-size[0] // block[0]), -(-size[1] // block[1]))


def _is_jpeg(page: tifffile.TiffPage) -> bool:
    return bool(
        page.compression == tifffile.COMPRESSION.JPEG
        and page.photometric in JPEG_SPACES
        and not (page.photometric == tifffile.PHOTOMETRIC.RGB and page.is_jfif)
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.is_tiled
        and min(page.databytecounts, default=0) > 0
    )
