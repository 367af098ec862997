"""One small interface over every kind of slide file, and the choice of who reads it.

`open_slide` looks at what the file is, not at its name: OpenSlide reads the scanners' own formats,
tifffile reads OME-TIFF, QPTIFF and whatever TIFF OpenSlide refuses, Pillow reads plain images.
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
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import SlideError
from pipeline.slides import tiff

if TYPE_CHECKING:
    from pipeline.slides.tiff_blocks import Blocks

Image = npt.NDArray[np.uint8]
Scene = int | Literal["largest"]
LARGEST: Literal["largest"] = "largest"

# A whole level is read in bands of so many pixels (about 25 MB with copies), two of them ahead of
# whoever uses them: decoding leaves Python's lock, so that it runs beside the work.
BAND_PIXELS = 2**21
BANDS_AHEAD = 2
_IMAGE_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_OME = "<OME"
_QPTIFF = "PerkinElmer-QPI"


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


def shrink(image: Image, max_px: int) -> Image:
    """The image with its long side at most `max_px` pixels, by area interpolation."""
    height, width = image.shape[:2]
    scale = max_px / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def on_white(image: npt.NDArray[np.uint8]) -> Image:
    """RGBA (H, W, 4) with straight alpha, laid on white: uint8 (H, W, 3)."""
    alpha = image[..., 3]
    rgb = cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)
    low = int(alpha.min())
    if low == 255:
        return rgb
    if low == 0 and not np.any((alpha > 0) & (alpha < 255)):
        rgb[alpha == 0] = 255
        return rgb
    weight = alpha[..., None].astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def open_slide(path: str | Path, scene: Scene = LARGEST) -> Slide:
    """Open a slide with the reader that its content asks for.

    Args:
        path: a file, or a folder with the files of one DICOM series.
        scene: which scene of a file with several, from 0 in the file's order.

    Raises:
        SlideError: `missing_file`; `unopenable`, no reader knows it; `truncated`, its directory
            is cut off; `too_large`, it declares more than it can hold; `not_brightfield`, it has
            no RGB image; `no_scene`, it has no scene of this number.
    """
    path = Path(path)
    slide = _open(path, scene)
    if scene not in (LARGEST, slide.scene):
        slide.close()
        raise SlideError(
            f"{path.name}: tiling.scene is {scene}, but the file has only scene 0", "no_scene"
        )
    return slide


def _open(path: Path, scene: Scene) -> Slide:
    if path.is_dir():
        series = sorted(p for p in path.iterdir() if p.suffix.lower() == ".dcm")
        if not series:
            raise SlideError(f"{path}: a folder without .dcm files is not a slide", "unopenable")
        path = series[0]
    if not path.is_file():
        raise SlideError(f"{path}: no such file", "missing_file")
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise SlideError(
            f"{path.name}: the folder {path.stem}/ that holds its pixels is not beside it",
            "missing_file",
        )
    with path.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(_IMAGE_MAGIC) and path.suffix.lower() != ".mrxs":
        from pipeline.slides.image_backend import ImageSlide

        return ImageSlide(path)
    if tiff.is_tiff(path):
        return _open_tiff(path, scene)

    from pipeline.slides.openslide_backend import OpenSlideSlide, vendor

    if vendor(path) is None:
        raise SlideError(
            f"{path.name}: not a slide: no reader knows a file that starts with {magic!r}",
            "unopenable",
        )
    return OpenSlideSlide(path)


def _open_tiff(path: Path, scene: Scene) -> Slide:
    pages = tiff.read_pages(path)
    if not pages:
        raise SlideError(f"{path.name}: a TIFF without an image", "unopenable")
    tiff.check_size(path, pages)
    first = pages[0].description
    if _OME not in first and _QPTIFF not in first:
        from pipeline.slides.openslide_backend import PLAIN_GRIDS, OpenSlideSlide, vendor

        found = vendor(path)
        if found == "generic-tiff" and pages[0].samples < 3:
            raise SlideError(not_rgb(path, pages[0].samples), "not_brightfield")
        if found is not None and not (found == "generic-tiff" and _has_scenes(path, pages)):
            try:
                return OpenSlideSlide(path)
            except SlideError as refused:
                if found not in PLAIN_GRIDS:
                    raise
                return _open_refused(path, scene, refused)
    from pipeline.slides.tifffile_backend import TiffSlide

    return TiffSlide(path, scene)


def _has_scenes(path: Path, pages: list[tiff.Page]) -> bool:
    """Whether a plain TIFF has several images like the largest, of which OpenSlide sees one."""
    if len(pages) == 1:
        return False
    from pipeline.slides.tifffile_backend import count_scenes

    return count_scenes(path) > 1


def _open_refused(path: Path, scene: Scene, refused: SlideError) -> Slide:
    """Tiles in a compression that OpenSlide does not have may be read by tifffile."""
    from pipeline.slides.tifffile_backend import TiffSlide

    try:
        return TiffSlide(path, scene)
    except SlideError as also:
        raise SlideError(f"{refused.reason}; {also.reason}", refused.kind) from also


def not_rgb(path: Path, samples: int) -> str:
    """Why an image without red, green and blue is refused."""
    return (
        f"{path.name}: {samples} channel(s) instead of red, green and blue: a fluorescence or "
        "single-channel image cannot go through encoders trained on brightfield stains"
    )
