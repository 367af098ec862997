"""The one pass over a low level that segmentation, focus and pictures are made from."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.slides.base import Slide
from pipeline.slides.pixels import Image, shrink

FOCUS_MPP = 4.0  # µm per pixel at which focus is judged, as HistoQC does (2.5x)
FOCUS_BLOCK = 16  # pixels of FOCUS_MPP: blocks of 64 µm
FOCUS_NEIGHBOURHOOD = 9  # pixels of FOCUS_MPP, for the contrast that edges are compared with
LEVEL_TOLERANCE = 1.05  # a level may be this much coarser than asked for
MAX_PIXELS = 2**26  # of the segmentation image: 64 mm x 64 mm at 8 µm/px
THUMBNAIL_PX = 1024


@dataclasses.dataclass(frozen=True)
class Survey:
    """A slide seen from afar.

    Attributes:
        dimensions: (width, height) of level 0.
        image: uint8 (H, W, 3) RGB, the segmentation's resolution. Its last row and column may
            reach beyond the slide, and are white there.
        downsample: level-0 pixels per pixel of `image`.
        mpp: µm per pixel of `image`.
        sharpness: float32 (h, w), one value per 64 µm block from the upper left corner on, or None
            where the slide is too coarse to judge; see `_sharpness`.
        block: side of such a block in pixels of `image`.
        thumbnail: uint8 RGB, long side at most `THUMBNAIL_PX`.
    """

    dimensions: tuple[int, int]
    image: Image
    downsample: float
    mpp: float
    sharpness: npt.NDArray[np.float32] | None
    block: float
    thumbnail: Image


def level_for(slide: Slide, mpp: float, wanted: float) -> int:
    """The coarsest level that is not coarser than `wanted` µm/px (within 5 %), or level 0.

    Args:
        slide: the open slide.
        mpp: µm per pixel at level 0.
        wanted: µm per pixel.
    """
    scales = [mpp * d for d in slide.level_downsamples]
    return max((i for i, s in enumerate(scales) if s <= wanted * LEVEL_TOLERANCE), default=0)


def survey(slide: Slide, mpp: float, wanted: float, focus: bool) -> Survey:
    """Read a slide once, at low magnification.

    Args:
        slide: an open slide.
        mpp: its µm per pixel at level 0.
        wanted: µm per pixel of the segmentation image. The true value differs by less than a
            factor of 1.5, because a level is averaged by whole numbers only; it is in the result.
        focus: also judge the focus, for which a level of at most 4 µm/px is read.

    Raises:
        SlideError: `unreadable`.
    """
    width, height = slide.dimensions
    wanted = max(wanted, mpp * math.sqrt(width * height / MAX_PIXELS))
    level = level_for(slide, mpp, min(wanted, FOCUS_MPP) if focus else wanted)
    scale = mpp * slide.level_downsamples[level]
    factor = max(1, round(wanted / scale))
    judged = focus and scale <= FOCUS_MPP * LEVEL_TOLERANCE
    fine = max(1, round(FOCUS_MPP / scale))
    unit = math.lcm(factor, fine * FOCUS_BLOCK) if judged else factor

    images: list[Image] = []
    sharp: list[npt.NDArray[np.float32]] = []
    for _, band in slide.bands(level, unit):
        images.append(_reduce(band, factor))
        if judged:
            sharp.append(_sharpness(_reduce(band, fine)))
    columns = math.ceil(slide.level_dimensions[level][0] / factor)
    rows = math.ceil(slide.level_dimensions[level][1] / factor)
    image = np.ascontiguousarray(np.concatenate(images)[:rows, :columns])
    thumbnail = (
        shrink(image, THUMBNAIL_PX)
        if max(rows, columns) >= THUMBNAIL_PX or (factor == 1 and level == 0)
        else slide.thumbnail(THUMBNAIL_PX)
    )
    return Survey(
        dimensions=slide.dimensions,
        image=image,
        downsample=factor * slide.level_downsamples[level],
        mpp=factor * scale,
        sharpness=np.concatenate(sharp) if judged else None,
        block=fine * FOCUS_BLOCK / factor,
        thumbnail=thumbnail,
    )


def _reduce(image: Image, factor: int) -> Image:
    if factor == 1:
        return image
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _sharpness(image: Image) -> npt.NDArray[np.float32]:
    """How much of a block's contrast lies in its finest detail.

    The mean absolute Laplacian over the mean absolute deviation from the neighbourhood, both of
    the grey image at about 4 µm/px. The quotient does not depend on stain or contrast: tissue in
    focus lies between 1.4 and 3.5, a Gaussian blur of 4 µm brings it below 1.0, of 8 µm below 0.6.
    A block without contrast is 0 / 1 and must be left out by whoever knows that it is glass.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    detail = cv2.convertScaleAbs(cv2.Laplacian(grey, cv2.CV_16S, ksize=1))
    contrast = cv2.absdiff(grey, cv2.blur(grey, (FOCUS_NEIGHBOURHOOD, FOCUS_NEIGHBOURHOOD)))
    return _block_mean(detail) / (_block_mean(contrast) + 1.0)


def _block_mean(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    size = (image.shape[1] // FOCUS_BLOCK, image.shape[0] // FOCUS_BLOCK)
    return cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA)
