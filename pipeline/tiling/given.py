"""Tiles that another tool laid, in place of the grid: a slide keeps the tiles it had there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pipeline.config.tiling import TilingConfig
from pipeline.contracts.slide_warnings import SlideWarning
from pipeline.errors import ArtifactError, SlideError
from pipeline.slides import grid
from pipeline.slides.tile_coverage import Coords
from pipeline.tiling.exchange import read_any

# CLAM knows the slide's size only in pixels of a level, rounded.
SIZE_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Given:
    """Tiles of another tool, checked against the slide.

    Attributes:
        source: `trident` or `clam`.
        coords: int32 (N, 2) level-0 (x, y), each once, sorted by (y, x), wholly on the slide.
        geometry: how they are read.
        warnings: what was left out.
    """

    source: str
    coords: Coords
    geometry: grid.Geometry
    warnings: list[SlideWarning]


def read_given(
    path: Path,
    dimensions: tuple[int, int],
    mpp: float,
    geometry: grid.Geometry,
    cfg: TilingConfig,
) -> Given:
    """Read a slide's tiles from a TRIDENT or CLAM file.

    Args:
        path: the HDF5 file.
        dimensions: (width, height) of the slide's level 0.
        mpp: µm per pixel of level 0.
        geometry: how the grid's tiles would be read.
        cfg: the tiling section, for the size that a tile must have.

    Raises:
        SlideError: `bad_coordinates`: unreadable, of another slide, of another physical size, or
            without a tile on the slide.
    """
    try:
        tiles, source = read_any(path)
    except ArtifactError as error:
        raise SlideError(str(error), "bad_coordinates") from None
    if any(
        abs(a / b - 1) > SIZE_TOLERANCE for a, b in zip(tiles.dimensions, dimensions, strict=True)
    ):
        raise SlideError(
            f"{path}: made for a slide of {tiles.dimensions[0]} x {tiles.dimensions[1]} pixels, "
            f"this one has {dimensions[0]} x {dimensions[1]}",
            "bad_coordinates",
        )
    wanted = cfg.tile_px * cfg.target_mpp
    if abs(tiles.size0 * mpp - wanted) > cfg.mpp_tolerance * wanted + mpp:  # of a whole pixel
        raise SlideError(
            f"{path}: its tiles are {tiles.size0 * mpp:.4g} um wide on this "
            f"slide, but tiling.tile_px x target_mpp is {wanted:g} um; make them agree",
            "bad_coordinates",
        )
    coords = np.unique(tiles.coords[:, ::-1], axis=0)[:, ::-1]
    inside = np.all((coords >= 0) & (coords + tiles.size0 <= np.array(dimensions)), axis=1)
    lost = int(np.count_nonzero(~inside))
    if lost == len(coords):
        raise SlideError(f"{path}: no tile of it lies on the slide", "bad_coordinates")
    told = f"{lost} given tiles reach beyond the slide and were left out"
    return Given(
        source=source,
        coords=np.ascontiguousarray(coords[inside], np.int32),
        geometry=dataclasses.replace(
            geometry,
            size0=tiles.size0,
            read_px=max(1, round(tiles.size0 / geometry.downsample)),
            overlap_px=tiles.overlap_px,
        ),
        warnings=[SlideWarning("tiles_left_out", told)] if lost else [],
    )
