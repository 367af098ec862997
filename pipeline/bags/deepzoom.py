"""DeepZoom addresses: level, column and row of a tile, as some tools keep them."""

from __future__ import annotations

import math

import numpy as np

# A DeepZoom level is ceil(log2(longest side)) at full size: no slide is smaller than 2^8 or
# larger than 2^24 pixels a side.
LEVELS = (6, 24)
TILE_PX = 224


def is_addressed(data: np.ndarray) -> bool:
    """Whether the first three columns are DeepZoom addresses: one level, whole, not negative."""
    if data.ndim != 2 or data.shape[1] <= 3 or not len(data):
        return False
    head = np.asarray(data[:, :3], dtype=np.float64)
    if not (np.isfinite(head).all() and (head == np.rint(head)).all() and (head >= 0).all()):
        return False
    low, high = LEVELS
    return bool((head[:, 0] == head[0, 0]).all() and low <= head[0, 0] <= high)


def to_pixels(addresses: np.ndarray, slide_size: tuple[int, int], tile_px: int) -> np.ndarray:
    """Level-0 corners of DeepZoom tiles without overlap.

    Level `ceil(log2(max(width, height)))` is the full image and each level below halves it, so a
    tile at (level, column, row) starts at column · tile_px · 2^(top - level).

    Args:
        addresses: (N, 3): level, column, row.
        slide_size: level-0 (width, height).
        tile_px: tile side in pixels of its level.

    Returns:
        int32 (N, 2) as (x, y).
    """
    top = math.ceil(math.log2(max(slide_size)))
    scale = 2.0 ** (top - addresses[:, :1])
    return np.rint(addresses[:, 1:3] * tile_px * scale).astype(np.int32)
