"""Write an RGB picture as a pyramidal slide that OpenSlide opens as Aperio's.

What makes it one (https://openslide.org/formats/aperio/): a tiled TIFF whose first ImageDescription
begins with `Aperio`, with `|key = value` pairs behind it; first the full picture, then an untiled
thumbnail, then the pyramid levels as tiled pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

TILE = 256
SHRINK = 4
SMALLEST_SIDE = 1024
THUMBNAIL_SIDE = 768
QUALITY = 85
SOFTWARE = "Aperio Image Library v11.2.1 "


def write(
    path: Path, image: NDArray[np.uint8], mpp: float | None, facts: Mapping[str, str] | None = None
) -> None:
    """Write a slide: JPEG tiles, levels shrunk by 4 until a side is at most SMALLEST_SIDE.

    Args:
        path: the file.
        image: (height, width, 3) uint8 RGB at level 0.
        mpp: µm per pixel; None leaves out the MPP and AppMag fields.
        facts: more fields of the description; OpenSlide shows them as `aperio.<name>`.
    """
    height, width = image.shape[:2]
    scale = {} if mpp is None else {"AppMag": f"{10 / mpp:.0f}", "MPP": f"{mpp:.4f}"}
    tail = "".join(f"|{key} = {value}" for key, value in {**scale, **(facts or {})}.items())
    levels = _levels(image)
    with tifffile.TiffWriter(path, bigtiff=image.nbytes > 2**32) as tiff:
        _page(tiff, image, f"{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE})", tail)
        small = _shrunk(levels[-1], THUMBNAIL_SIDE / max(levels[-1].shape))
        shown = f"{width}x{height} -> {small.shape[1]}x{small.shape[0]} - "
        _page(tiff, small, shown, tail, tiled=False)
        for level in levels[1:]:
            size = f"{level.shape[1]}x{level.shape[0]}"
            shown = f"{width}x{height} [0,0 {width}x{height}] ({TILE}x{TILE}) -> {size}"
            _page(tiff, level, shown, tail)


def _page(
    tiff: tifffile.TiffWriter, image: NDArray[np.uint8], shown: str, tail: str, tiled: bool = True
) -> None:
    tiff.write(
        image,
        photometric="rgb",  # of the array; the JPEG tiles hold YCbCr
        subsampling=(2, 2),
        compression="jpeg",
        compressionargs={"level": QUALITY},
        tile=(TILE, TILE) if tiled else None,
        rowsperstrip=None if tiled else 16,
        description=f"{SOFTWARE}\n{shown} JPEG/RGB Q={QUALITY}{tail}",
        metadata=None,
        software=False,
        maxworkers=1,
    )


def _levels(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [image]
    while max(levels[-1].shape) > SMALLEST_SIDE:
        levels.append(_shrunk(levels[-1], 1 / SHRINK))
    return levels


def _shrunk(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    if factor >= 1:
        return image
    size = (max(1, int(image.shape[1] * factor)), max(1, int(image.shape[0] * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
