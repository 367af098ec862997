"""Tiles of a physical size on a fixed grid, without a loop over tiles.

The grid starts at (0, 0) of level 0 and steps by whole tiles in microns, so that a slide has the
same tiles whatever else is in the run, whatever its tissue looks like. Only where that grid has no
tile with enough tissue (a small region of interest, a thin core between two columns) it is moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.config.tiling import TilingConfig
from pipeline.errors import SlideError
from pipeline.slides.tile_coverage import Coords, Mask, cover

PLACES_PER_TILE = 16  # how finely `best_place` looks along each axis


@dataclasses.dataclass(frozen=True)
class Geometry:
    """How a slide's tiles are read.

    Attributes:
        size0: side of a tile in level-0 pixels: of what is read, so that tiles that are not
            resized are up to the tolerance larger or smaller than target_mpp asks for.
        step0: distance of neighbouring tiles in level-0 pixels, a real number: rounded per tile,
            so that the grid does not drift.
        level: the pyramid level to read.
        downsample: level-0 pixels per pixel of that level.
        read_px: side of a tile in pixels of that level; `tile_px` where the level is within the
            tolerance and no resize is needed.
        level_dimensions: (width, height) of that level.
        overlap_px: what neighbouring tiles share, in pixels of a tile as an encoder sees it.
    """

    size0: int
    step0: float
    level: int
    downsample: float
    read_px: int
    level_dimensions: tuple[int, int]
    overlap_px: int


def plan(
    mpp: float,
    level_downsamples: Sequence[float],
    level_dimensions: Sequence[tuple[int, int]],
    cfg: TilingConfig,
) -> Geometry:
    """Choose the level and the level-0 size of a slide's tiles.

    The level is the coarsest whose mpp is at most target_mpp * (1 + mpp_tolerance).

    Args:
        mpp: µm per pixel at level 0.
        level_downsamples: level-0 pixels per pixel of each level.
        level_dimensions: (width, height) of each level.
        cfg: the tiling section.

    Raises:
        SlideError: `too_coarse`, even level 0 is coarser than that: enlarging invents detail.
    """
    limit = cfg.target_mpp * (1 + cfg.mpp_tolerance)
    fit = [i for i, d in enumerate(level_downsamples) if mpp * d <= limit * (1 + 1e-9)]
    if not fit:
        raise SlideError(
            f"scanned at {mpp:g} µm/px, coarser than target_mpp {cfg.target_mpp:g}: enlarging "
            "would invent detail; use a coarser target_mpp, or exclude the slide",
            "too_coarse",
        )
    level = max(fit, key=lambda i: level_downsamples[i])
    downsample = level_downsamples[level]
    near = abs(mpp * downsample / cfg.target_mpp - 1) <= cfg.mpp_tolerance
    pixel0 = downsample if near else cfg.target_mpp / mpp  # a tile's pixel in level-0 pixels
    size0 = round(cfg.tile_px * pixel0)
    return Geometry(
        size0=size0,
        step0=(cfg.tile_px - cfg.overlap_px) * pixel0,
        level=level,
        downsample=downsample,
        read_px=cfg.tile_px if near else max(1, round(size0 / downsample)),
        level_dimensions=level_dimensions[level],
        overlap_px=cfg.overlap_px,
    )


def positions(length: int, geometry: Geometry, origin: int = 0) -> npt.NDArray[np.int64]:
    """Starts of the tiles that lie wholly inside origin..length, in level-0 pixels.

    Args:
        length: where the area ends, in level-0 pixels.
        geometry: size and distance of the tiles.
        origin: where it begins, in level-0 pixels.
    """
    room = length - geometry.size0
    if room < origin:
        return np.empty(0, np.int64)
    count = int((room - origin) / geometry.step0) + 2
    starts = origin + np.rint(np.arange(count) * geometry.step0).astype(np.int64)
    return starts[starts <= room]


def best_place(
    mask: Mask, downsample: float, dimensions: tuple[int, int], geometry: Geometry
) -> tuple[tuple[int, int], float]:
    """The one tile that a mask covers most of, wherever it stands.

    A slide that is smaller than a tile has one place, at its corner; the tile reaches beyond it and
    is white there.

    Args:
        mask: uint8 (H, W), 0 or 1, not all 0.
        downsample: level-0 pixels per mask pixel.
        dimensions: (width, height) of level 0.
        geometry: of the tiles.

    Returns:
        the tile's level-0 (x, y), and the share of it that is covered.
    """
    left, top, width, height = cv2.boundingRect(mask)
    starts = [
        _starts(low * downsample, (low + long) * downsample, length, geometry.size0)
        for low, long, length in zip((left, top), (width, height), dimensions, strict=True)
    ]
    xs, ys = starts
    share = cover(mask, downsample, xs, ys, geometry.size0)
    row, column = np.unravel_index(int(np.argmax(share)), share.shape)
    return (int(xs[column]), int(ys[row])), float(share[row, column])


def _starts(low: float, high: float, length: int, size0: int) -> npt.NDArray[np.int64]:
    """Places, a few µm apart, for a tile that reaches into low..high and lies in 0..length."""
    room = max(0, length - size0)
    step = max(1, size0 // PLACES_PER_TILE)
    first, last = np.clip([low - size0, high], 0, room)
    return np.unique(np.append(np.arange(int(first), int(last) + 1, step), int(last)))


def spread(coords: Coords, most: int, seed: int, name: str) -> npt.NDArray[np.int64]:
    """Choose at most `most` tiles, evenly over the tissue, the same ones each time.

    A systematic sample along a Hilbert curve: neighbours on the curve are neighbours on the slide,
    so that equal steps along it are even in space (the idea of generalised random tessellation
    sampling, Stevens and Olsen 2004). The start of the steps comes from the seed and the slide's
    name.

    Args:
        coords: int64 (n, 2), corners of the tiles at level 0.
        most: how many to choose.
        seed: of the config.
        name: the slide's id.

    Returns:
        Row numbers in ascending order.
    """
    count = len(coords)
    if count <= most:
        return np.arange(count)
    order = np.argsort(_hilbert(coords), kind="stable")
    start = int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:8], 16) / 2**32
    return np.sort(order[((np.arange(most) + start) * (count / most)).astype(np.int64)])


def _hilbert(coords: Coords, order: int = 16) -> npt.NDArray[np.int64]:
    """The distance along a Hilbert curve of each point, after scaling to 2^order cells."""
    points = coords.astype(np.int64)
    points -= points.min(axis=0)
    longest = max(int(points.max()), 1)
    x, y = (points * (2**order - 1) // longest).T.copy()
    distance = np.zeros(len(points), np.int64)
    side = 2 ** (order - 1)
    while side > 0:
        right, upper = (x & side) > 0, (y & side) > 0
        distance += side * side * ((3 * right) ^ upper)
        flip = ~upper & right
        x[flip], y[flip] = 2**order - 1 - x[flip], 2**order - 1 - y[flip]
        swap = ~upper
        x[swap], y[swap] = y[swap], x[swap].copy()
        side //= 2
    return distance
