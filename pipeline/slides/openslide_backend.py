"""Slides through OpenSlide: SVS, NDPI, MRXS, SCN, BIF, VMS, Philips, DICOM, generic tiled TIFF.

Where a file's levels are plain grids of TIFF tiles, OpenSlide says what the file is and the tiles
are decoded directly, which gives the same pixels in a fifth of the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import openslide

from pipeline.errors import SlideError
from pipeline.slides.base import Slide
from pipeline.slides.pixels import Image, on_white
from pipeline.slides.tiff_blocks import Blocks
from pipeline.slides.tile_coverage import Mask

if TYPE_CHECKING:
    import tifffile

PLAIN_GRIDS = ("aperio", "generic-tiff")
# None, LZW, deflate (two codes), and those whose tiles say how their colours are coded: JPEG, and
# Aperio's JPEG 2000 in RGB.
DIRECT_COMPRESSIONS = (1, 5, 7, 8, 32946, 33005)
_RGB, _YCBCR, _JPEG = 2, 6, 7
MAX_OPAQUE_PIXELS = 2**26


def vendor(path: Path) -> str | None:
    """OpenSlide's name of the format, or None where it knows none."""
    try:
        return openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError:
        return None


class OpenSlideSlide(Slide):
    """A slide that OpenSlide reads.

    Raises:
        SlideError: `unopenable`, with OpenSlide's words.
    """

    backend = "openslide"

    def __init__(self, path: Path) -> None:
        try:
            self._slide = openslide.OpenSlide(str(path))
        except (openslide.OpenSlideError, OSError) as error:
            raise SlideError(f"{path.name}: OpenSlide: {error}", "unopenable") from error
        super().__init__(
            path,
            tuple((int(w), int(h)) for w, h in self._slide.level_dimensions),
            dict(self._slide.properties),
            tuple(float(d) for d in self._slide.level_downsamples),
        )
        plain = self.properties.get("openslide.vendor") in PLAIN_GRIDS
        self.blocks = _plain_blocks(path, self.level_dimensions) if plain else None

    def _read(self, x: int, y: int, level: int, w: int, h: int) -> Image:
        if self.blocks is not None:
            downsample = self.level_downsamples[level]
            return self.blocks.read(round(x / downsample), round(y / downsample), level, w, h)
        try:
            return on_white(np.asarray(self._slide.read_region((x, y), level, (w, h))))
        except openslide.OpenSlideError:
            # OpenSlide refuses every read after its first error; a fresh handle lets the
            # caller go on with the regions that are sound. The old one is not closed here,
            # since another thread may be reading through it.
            self._slide = openslide.OpenSlide(str(self.path))
            raise

    def opaque(self) -> Mask | None:
        level = len(self.level_dimensions) - 1
        width, height = self.level_dimensions[level]
        if self.blocks is not None or width * height > MAX_OPAQUE_PIXELS:
            return None
        alpha = self._slide.read_region((0, 0), level, (width, height)).getchannel("A")
        return (np.asarray(alpha) > 0).astype(np.uint8)

    @property
    def associated_images(self) -> Mapping[str, Image]:
        return _Associated(self._slide)

    def close(self) -> None:
        self._slide.close()
        if self.blocks is not None:
            self.blocks.close()


def _plain_blocks(path: Path, dimensions: tuple[tuple[int, int], ...]) -> Blocks | None:
    """Direct access to the tiles, where all levels are plain RGB tiles without a gap."""
    import tifffile

    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tifffile.TiffFile(path))
            tiled = [page.aspage() for page in file.pages if page.is_tiled]
            pages = {(page.imagewidth, page.imagelength): page for page in reversed(tiled)}
            levels = [[pages[size]] for size in dimensions]
            if not all(_is_plain(page) for (page,) in levels):
                return None
            blocks = Blocks(file, levels)
        except Exception:  # whatever tifffile cannot make of the file, OpenSlide reads
            return None
        stack.pop_all()
        return blocks


def _is_plain(page: tifffile.TiffPage) -> bool:
    coded = page.photometric == _RGB or (page.photometric, page.compression) == (_YCBCR, _JPEG)
    return bool(
        coded
        and page.compression in DIRECT_COMPRESSIONS
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == 1
        and min(page.databytecounts) > 0  # OpenSlide fills gaps from other levels
    )


class _Associated(Mapping[str, Image]):
    """Associated images, decoded when they are asked for."""

    def __init__(self, slide: openslide.OpenSlide) -> None:
        self._images = slide.associated_images

    def __getitem__(self, name: str) -> Image:
        return cv2.cvtColor(np.asarray(self._images[name].convert("RGBA")), cv2.COLOR_RGBA2RGB)

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __len__(self) -> int:
        return len(self._images)
