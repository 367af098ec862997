"""A slide's tiles as the tiling stage wrote them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.files.artifacts import COMPLETE, FINGERPRINT
from pipeline.files.checksums import checksum, is_intact
from pipeline.files.hdf5 import read_hdf5
from pipeline.runtime.machine_errors import is_machines

AGAIN = "`snakemake --forcerun tiling` makes it again, and leaves whole ones as they are"

# Attributes of the coordinates that other tools look for, copied to the feature file.
KEPT = (
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "overlap",
    "name",
    "level0_width",
    "level0_height",
    "scene",
    "mpp_level0",
    "mpp_source",
    "target_mpp",
    "tile_px",
    "tile_um",
    "read_level",
    "read_downsample",
    "read_px",
)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where a slide's tiles are and how they are read.

    Attributes:
        coords: int32 (N, 2), level-0 pixels (x, y) of the upper left corners, sorted by (y, x).
        level: the pyramid level to read.
        downsample: level-0 pixels per pixel of that level.
        side: a tile's side in pixels of that level.
        scene: which of the slide file's scenes was tiled.
        fingerprint: of the tiles file.
        slide: identity of the slide file that was tiled; empty where the tiles do not say.
        attributes: of the coordinates, for the feature file.
    """

    coords: np.ndarray
    level: int
    downsample: float
    side: int
    fingerprint: str
    attributes: dict[str, Any]
    slide: str = ""
    scene: int = 0


def level_corners(grid: Grid, start: int, stop: int) -> np.ndarray:
    """Corners of the tiles start…stop - 1 in whole pixels of the level: int64 (n, 2) as (x, y).

    Args:
        grid: the slide's tiles.
        start: first tile.
        stop: the tile after the last one.
    """
    return np.rint(grid.coords[start:stop] / grid.downsample).astype(np.int64)


def read_grid(path: Path) -> Grid:
    """Read a tiles file.

    Raises:
        ArtifactError: it is missing, damaged or incomplete.
    """
    try:
        with read_hdf5(path) as file:
            coords = np.asarray(file["coords"][()], dtype=np.int32).reshape(-1, 2)
            found = {**file["coords"].attrs, **file.attrs}
            intact = is_intact(file["coords"], checksum(coords))
    except (OSError, KeyError) as error:
        if is_machines(error):
            raise
        raise ArtifactError(f"{path}: not a tiles file ({error}); {AGAIN}") from None
    if not found.get(COMPLETE) or FINGERPRINT not in found or not intact:
        raise ArtifactError(f"{path}: not complete; {AGAIN}")
    downsample = float(found["read_downsample"])
    return Grid(
        coords=coords,
        level=int(found["read_level"]),
        downsample=downsample,
        side=int(found["read_px"]),
        fingerprint=str(found[FINGERPRINT]),
        attributes={key: found[key] for key in KEPT if key in found},
        slide=str(found.get("slide_identity", "")),
        scene=int(found.get("scene", 0)),
    )
