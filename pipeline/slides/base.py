"""One small interface over every kind of slide file.

Coordinates are pixels (x, y) of level 0. Transparent pixels and pixels outside the slide are white.
A region that cannot be decoded raises; nothing is ever replaced by a white tile.
"""

from __future__ import annotations

import abc
import collections
import itertools
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self

import cv2
import numpy as np

from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import SlideError
from pipeline.slides.pixels import Image, shrink
from pipeline.slides.tiff_blocks import Blocks
from pipeline.slides.tile_coverage import Mask

Scene = int | Literal["largest"]
LARGEST: Literal["largest"] = "largest"

# A whole level is read in bands of so many pixels (about 25 MB with copies), two of them ahead of
# whoever uses them: decoding leaves Python's lock, so that it runs while others work.
BAND_PIXELS = 2**21
BANDS_AHEAD = 2


class Slide(abc.ABC):
    """An open slide.

    Attributes:
        path: the file.
        backend: who reads it: openslide, tifffile or image.
        level_dimensions: (width, height) of each level, finest first.
        level_downsamples: level-0 pixels per pixel of each level; the first is 1.
        properties: texts as the file states them, under OpenSlide's names where it has one.
        blocks: the file's own compressed blocks, where its levels are plain grids of them.
        scene: which of the file's scenes this is, from 0.
        warnings: what is doubtful about how the file is read.

    Args:
        path: the file.
        level_dimensions: (width, height) of each level, finest first.
        properties: texts as the file states them.
        level_downsamples: level-0 pixels per pixel of each level; None: from the widths.
    """

    backend: ClassVar[str]
    blocks: Blocks | None = None
    scene: int = 0
    warnings: tuple[SlideWarning, ...] = ()

    def __init__(
        self,
        path: Path,
        level_dimensions: tuple[tuple[int, int], ...],
        properties: Mapping[str, str],
        level_downsamples: tuple[float, ...] | None = None,
    ) -> None:
        self.path = path
        self.level_dimensions = level_dimensions
        self.properties = properties
        width, height = level_dimensions[0]
        self.level_downsamples = level_downsamples or tuple(
            1.0 if level == 0 else (width / w + height / h) / 2
            for level, (w, h) in enumerate(level_dimensions)
        )

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        return self.level_dimensions[0]

    @property
    def associated_images(self) -> Mapping[str, Image]:
        """Label, macro and thumbnail, where the file has them: name -> uint8 (H, W, 3)."""
        return {}

    def opaque(self) -> Mask | None:
        """Where the coarsest level has pixels: uint8 (h, w), 0 or 1; None where all of it has."""
        return None

    def read_region(self, x: int, y: int, level: int, w: int, h: int) -> Image:
        """Pixels of a rectangle.

        Args:
            x, y: its upper left corner in level-0 pixels; may lie outside the slide.
            level: the pyramid level to read.
            w, h: its size in pixels of that level.

        Returns:
            uint8 (h, w, 3) RGB; white where the slide has no pixels.

        Raises:
            SlideError: `unreadable`, the region cannot be decoded.
        """
        if not 0 <= level < len(self.level_dimensions):
            raise ValueError(f"level {level} of {len(self.level_dimensions)}")
        if w <= 0 or h <= 0:
            raise ValueError(f"a region of {w} x {h} pixels")
        try:
            return self._read(x, y, level, w, h)
        except (SlideError, MemoryError):
            raise
        except Exception as error:  # decoders raise anything on damaged data
            raise SlideError(
                f"{self.path.name}: {w} x {h} pixels at ({x}, {y}) of level {level} cannot be "
                f"decoded ({' '.join(str(error).split()) or type(error).__name__})",
                "unreadable",
            ) from error

    @abc.abstractmethod
    def _read(self, x: int, y: int, level: int, w: int, h: int) -> Image: ...

    @abc.abstractmethod
    def close(self) -> None:
        """Release the file."""

    def bands(self, level: int, unit: int) -> Iterator[tuple[int, Image]]:
        """A whole level in bands of rows, so that memory never grows with the slide.

        Args:
            level: the pyramid level to read.
            unit: every band's height and width are made a multiple of this, with white.

        Yields:
            The band's first row in the level, and uint8 (rows, columns, 3).
        """
        width, height = self.level_dimensions[level]
        columns = math.ceil(width / unit) * unit
        rows = math.ceil(height / unit) * unit
        step = max(1, BAND_PIXELS // (columns * unit)) * unit

        def read(row: int) -> Image:
            top = round(row * self.level_downsamples[level])
            return self.read_region(0, top, level, columns, min(step, rows - row))

        starts = iter(range(0, rows, step))
        with ThreadPoolExecutor(BANDS_AHEAD) as pool:
            ahead = collections.deque(
                (row, pool.submit(read, row)) for row in itertools.islice(starts, BANDS_AHEAD)
            )
            while ahead:
                row, band = ahead.popleft()
                image = band.result()
                following = next(starts, None)
                if following is not None:
                    ahead.append((following, pool.submit(read, following)))
                yield row, image

    def read_reduced(self, level: int, factor: int) -> Image:
        """A whole level, made smaller by an integer factor, by area interpolation.

        Returns:
            uint8 (ceil(height / factor), ceil(width / factor), 3) RGB.
        """
        width, height = self.level_dimensions[level]
        columns, rows = math.ceil(width / factor), math.ceil(height / factor)
        result = np.empty((rows, columns, 3), np.uint8)
        for row, band in self.bands(level, factor):
            count = band.shape[0] // factor
            result[row // factor : row // factor + count] = cv2.resize(
                band, (columns, count), interpolation=cv2.INTER_AREA
            )
        return result

    def thumbnail(self, max_px: int) -> Image:
        """The whole slide, uint8 (h, w, 3), its long side at most `max_px` pixels."""
        sides = [max(size) for size in self.level_dimensions]
        level = max((i for i, side in enumerate(sides) if side >= max_px), default=0)
        factor = max(1, sides[level] // max_px)
        image = self.read_reduced(level, factor)
        return shrink(image, max_px)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def not_rgb(path: Path, samples: int) -> str:
    """Why an image without red, green and blue is refused."""
    return (
        f"{path.name}: {samples} channel(s) instead of red, green and blue: a fluorescence or "
        "single-channel image cannot go through encoders trained on brightfield stains"
    )
