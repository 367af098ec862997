"""Which part of the glass was scanned, and from where GeoJSON counts.

MRXS and a few other formats describe the whole glass, of which the scanner took a part. QuPath
shows that part alone: its coordinates start at the part's corner, which OpenSlide calls
`openslide.bounds-x` and `-y`. Coordinates inside this package always count from the glass's corner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import cv2
import numpy as np

from pipeline.slides.base import Slide
from pipeline.slides.tile_coverage import Mask

Origin = Literal["bounds", "slide"]


@dataclasses.dataclass(frozen=True)
class Frame:
    """How coordinates and pictures from outside lie on a slide.

    Attributes:
        origin: the level-0 pixel (x, y) that is (0, 0) in GeoJSON.
        window: (x, y, width, height) of the scanned part in level-0 pixels.
        dimensions: (width, height) of level 0.
        scanned: uint8 (H, W): 1 where the scanner took pixels, at the resolution of the masks.
    """

    origin: tuple[int, int]
    window: tuple[int, int, int, int]
    dimensions: tuple[int, int]
    scanned: Mask


def window_of(
    properties: Mapping[str, str], dimensions: tuple[int, int]
) -> tuple[int, int, int, int]:
    """(x, y, width, height) of the scanned part; the whole slide where the file does not say."""
    try:
        x, y, width, height = (
            int(properties[f"openslide.bounds-{side}"]) for side in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return 0, 0, *dimensions
    return x, y, width, height


def frame_of(
    slide: Slide, origin: Origin, shape: tuple[int, int], downsample: float, gaps: bool
) -> Frame:
    """The frame of an open slide.

    Args:
        slide: the slide.
        origin: `bounds`, as QuPath counts, or `slide`.
        shape: (H, W) of the masks.
        downsample: level-0 pixels per pixel of them.
        gaps: look for gaps inside the scanned part too, where the scanner left out glass.
    """
    window = window_of(slide.properties, slide.dimensions)
    scanned = inside(window, shape, downsample)
    seen = slide.opaque() if gaps and window[2:] != slide.dimensions else None
    if seen is not None:
        width, height = (max(1, round(side / downsample)) for side in slide.dimensions)
        small = cv2.resize(seen, (width, height), interpolation=cv2.INTER_NEAREST)
        small = small[: shape[0], : shape[1]]
        scanned[: small.shape[0], : small.shape[1]] &= small
    start = window[:2] if origin == "bounds" else (0, 0)
    return Frame(start, window, slide.dimensions, scanned)


def inside(window: tuple[int, int, int, int], shape: tuple[int, int], downsample: float) -> Mask:
    """A mask of a level-0 rectangle.

    Args:
        window: (x, y, width, height) in level-0 pixels.
        shape: (height, width) of the mask.
        downsample: level-0 pixels per mask pixel.
    """
    mask = np.zeros(shape, np.uint8)
    x, y, width, height = (side / downsample for side in window)
    mask[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = 1
    return mask
