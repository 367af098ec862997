"""Where a slide's tiles are on the grid of a slide encoder, and what that looks like to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import SlideError

GRID = 1000  # rows and columns that GigaPath's positions reach
NEAR = 0.25  # of a tile: how far a corner may lie from the grid


def grid_step(facts: Mapping[str, Any]) -> float:
    """Distance of neighbouring tiles in level-0 pixels, not rounded: 1,000 tiles must not drift.

    Args:
        facts: attributes of a feature file's coordinates, as tiling writes them; of other tools'
            files `patch_size_level0`.

    Raises:
        SlideError: `bad_grid`, the tiles overlap, or nothing says how large they are.
    """
    if int(facts.get("overlap", 0)):
        raise SlideError("its tiles overlap; a slide encoder needs tiles side by side", "bad_grid")
    if {"read_px", "tile_px", "read_downsample"} <= facts.keys():
        side = float(facts["tile_px"])
        if int(facts["read_px"]) == int(facts["tile_px"]):
            return side * float(facts["read_downsample"])
        return side * float(facts["target_mpp"]) / float(facts["mpp_level0"])
    if "patch_size_level0" not in facts:
        raise SlideError(
            "its feature file does not say how large its tiles are at level 0 "
            "(`patch_size_level0`), so that they have no place on the slide",
            "bad_grid",
        )
    return float(facts["patch_size_level0"])


def grid_cells(coords: np.ndarray, step: float, cells: int | None = GRID) -> np.ndarray:
    """Each tile's column and row, counted in tiles.

    Coordinates at level 0 are not yet those of the grid: of a slide at 0.25 µm per pixel a tile of
    256 px at 0.5 is 512 px wide, and dividing by 256 doubles all distances.

    Args:
        coords: int (N, 2), corners (x, y) in level-0 pixels, sorted by (y, x).
        step: distance of neighbouring tiles in level-0 pixels.
        cells: columns and rows that the encoder has positions for; None: any number.

    Returns:
        int64 (N, 2), (column, row).

    Raises:
        SlideError: `bad_grid`, a coordinate is negative, off the grid or beyond its end, or the
            tiles are not in row-major order.
    """
    exact = np.asarray(coords, dtype=np.float64).reshape(-1, 2) / step
    if not len(exact):
        return np.empty((0, 2), np.int64)
    if exact.min() < 0:
        raise SlideError("a tile has a negative coordinate", "bad_grid")
    apart = exact - exact[0]  # the grid may begin anywhere, as at the corner of what was scanned
    found = (np.floor(exact[0] + NEAR) + np.rint(apart)).astype(np.int64)
    off = float(np.abs(apart - np.rint(apart)).max())
    if off > NEAR:
        raise SlideError(
            f"its tiles, {step:g} level-0 pixels apart, are on no common grid: one is "
            f"{off:.2f} tiles away from it",
            "bad_grid",
        )
    if cells is not None and found.max() >= cells:
        raise SlideError(
            f"the slide is {int(found.max()) + 1} tiles long, but the encoder has positions for "
            f"{cells}",
            "bad_grid",
        )
    order = found[:, 1] * (1 + found[:, 0].max()) + found[:, 0]
    if (np.diff(order) <= 0).any():
        raise SlideError("its tiles are not in row-major order, or one is twice", "bad_grid")
    return found


def sin_cos(cells: Tensor, width: int) -> Tensor:
    """Fixed positions: half of the channels say the row, half the column.

    Computed for the tiles of a slide alone; a table of 1000 × 1000 cells takes 3 GB.

    Args:
        cells: int (N, 2), (column, row).
        width: channels, a multiple of 4.

    Returns:
        float32 (N, width): sines and cosines of the row, then of the column.
    """
    quarter = width // 4
    steps = torch.arange(quarter, dtype=torch.float64, device=cells.device) / quarter
    angles = cells.flip(-1).double()[..., None] * 10000.0**-steps
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2).float()
