"""How much of each tile a mask covers, exactly and without a loop over tiles."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]  # 0 or 1
Coords = npt.NDArray[np.int32]  # (N, 2): level-0 (x, y)


def cover(
    mask: Mask,
    downsample: float,
    xs: npt.NDArray[np.int64],
    ys: npt.NDArray[np.int64],
    size0: int,
) -> npt.NDArray[np.float32]:
    """The share of each tile of a grid that a mask covers, exact for a mask of square pixels.

    Args:
        mask: uint8 (H, W), 0 or 1.
        downsample: level-0 pixels per mask pixel.
        xs, ys: the columns and rows of the grid in level-0 pixels.
        size0: side of a tile in level-0 pixels.

    Returns:
        float32 (len(ys), len(xs)), 0 to 1. Beyond the mask's edge nothing is covered.
    """
    total = cv2.integral(mask)
    low = _rows(total, np.asarray(ys) / downsample)
    high = _rows(total, (np.asarray(ys) + size0) / downsample)
    strips = np.ascontiguousarray((high - low).T)
    left = _rows(strips, np.asarray(xs) / downsample)
    right = _rows(strips, (np.asarray(xs) + size0) / downsample)
    area = (size0 / downsample) ** 2
    return np.clip((right - left).T / area, 0, 1).astype(np.float32)


def cover_at(mask: Mask, downsample: float, coords: Coords, size0: int) -> npt.NDArray[np.float32]:
    """Like `cover`, for tiles that stand anywhere.

    Args:
        mask: uint8 (H, W), 0 or 1.
        downsample: level-0 pixels per mask pixel.
        coords: int32 (N, 2), level-0 (x, y).
        size0: side of a tile in level-0 pixels.

    Returns:
        float32 (N,), 0 to 1.
    """
    total = cv2.integral(mask)
    x, y = coords.T / downsample
    side = size0 / downsample
    inside = (
        _points(total, y + side, x + side)
        - _points(total, y, x + side)
        - _points(total, y + side, x)
        + _points(total, y, x)
    )
    return np.clip(inside / side**2, 0, 1).astype(np.float32)


def _points(
    table: npt.NDArray[Any], rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Values of a table of at least two by two at real positions, bilinear in between: float64."""
    low, share = [], []
    for at, length in ((rows, table.shape[0]), (columns, table.shape[1])):
        clipped = np.clip(at, 0, length - 1)
        low.append(np.minimum(clipped.astype(np.int64), length - 2))
        share.append(clipped - low[-1])
    (r, c), (down, right) = low, share
    upper = table[r, c] * (1 - right) + table[r, c + 1] * right
    lower = table[r + 1, c] * (1 - right) + table[r + 1, c + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)


def _rows(table: npt.NDArray[Any], at: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of a table of at least two at real positions, linear in between: float64."""
    at = np.clip(at, 0, len(table) - 1)
    low = np.minimum(at.astype(np.int64), len(table) - 2)
    share = (at - low)[:, None]
    return table[low] * (1 - share) + table[low + 1] * share
