"""Which tiles a slide gets: enough tissue, and not too much pen, blur or fold on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from pipeline.config.tiling import TilingConfig
from pipeline.slides import grid
from pipeline.slides.overview_scan import Survey
from pipeline.slides.tile_coverage import Coords, Mask, cover, cover_at

Shares = npt.NDArray[np.float32]  # (N,): 0 to 1, of each tile
# The name of a mask -> the key of `tiling:` that says how much of a tile it may cover.
LIMITS = {
    "pen": "max_pen_fraction",
    "blur": "max_blur_fraction",
    "folds": "max_fold_fraction",
}


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Tiles, and what is on them.

    Attributes:
        coords: int32 (N, 2) level-0 (x, y), sorted by (y, x).
        tissue: float32 (N,) the share of each tile that is tissue and not masked.
        artefacts: name as in `LIMITS` -> float32 (N,) the share of each tile; only what was judged.
        left_out: name as in `LIMITS` -> int32 (M, 2) tiles with enough tissue that are not used
            because of this artefact, which covers more of them than the others.
        origin: level-0 (x, y) where the grid starts.
        best: the most tissue that a tile has: of the grid, or anywhere if the grid has none with
            enough.
    """

    coords: Coords
    tissue: Shares
    artefacts: dict[str, Shares]
    left_out: dict[str, Coords]
    origin: tuple[int, int] = (0, 0)
    best: float = 0.0

    def pick(self, rows: npt.NDArray[np.int64]) -> Tiles:
        """Only these tiles."""
        return dataclasses.replace(
            self,
            coords=self.coords[rows],
            tissue=self.tissue[rows],
            artefacts={name: shares[rows] for name, shares in self.artefacts.items()},
        )

    def above(self, cfg: TilingConfig) -> dict[str, int]:
        """The number of tiles that have more of an artefact than its limit, where there are any."""
        counts = {
            name: int(np.count_nonzero(shares > getattr(cfg, LIMITS[name])))
            for name, shares in self.artefacts.items()
        }
        return {name: count for name, count in counts.items() if count}


def measure(
    view: Survey, tissue: Mask, judged: Mapping[str, Mask], coords: Coords, size0: int
) -> Tiles:
    """Tiles that are given, with what is on them; none is left out.

    Args:
        view: the slide from afar.
        tissue: uint8 (H, W) like `view.image`.
        judged: masks by the names of `LIMITS`, like `tissue`.
        coords: int32 (N, 2) level-0 (x, y).
        size0: side of a tile in level-0 pixels.
    """
    artefacts = {
        name: cover_at(mask, view.downsample, coords, size0) for name, mask in judged.items()
    }
    shares = cover_at(tissue, view.downsample, coords, size0)
    return Tiles(coords, shares, artefacts, {})


def choose(
    view: Survey,
    found: Mask,
    tissue: Mask,
    judged: Mapping[str, Mask],
    removed: tuple[str, ...],
    geometry: grid.Geometry,
    cfg: TilingConfig,
) -> Tiles:
    """The tiles of the grid that have enough tissue and not too much of what is removed.

    Where the grid has no tile with enough of what was found, it is moved so that it holds the tile
    with the most tissue: a small region of interest and a thin core give their tiles as well.

    Args:
        view: the slide from afar.
        found: uint8 (H, W) like `view.image`: all tissue.
        tissue: the part of it that is not masked.
        judged: masks by the names of `LIMITS`.
        removed: the names whose limits hold.
        geometry: how tiles are read.
        cfg: the tiling section.
    """
    origin = (0, 0)
    coords, best = _on_grid(view, found, geometry, cfg, origin)
    if not len(coords) and found.any():
        place, best = grid.best_place(found, view.downsample, view.dimensions, geometry)
        if best >= cfg.min_tissue_fraction and best > 0:
            origin = (round(place[0] % geometry.step0), round(place[1] % geometry.step0))
            coords, _ = _on_grid(view, found, geometry, cfg, origin, least=geometry.size0)
    tiles = measure(view, tissue, judged, coords, geometry.size0)
    kept = (tiles.tissue >= cfg.min_tissue_fraction) & (tiles.tissue > 0)
    for name in removed:
        kept &= tiles.artefacts[name] <= getattr(cfg, LIMITS[name])
    left_out: dict[str, Coords] = {}
    if removed and not kept.all():
        worst = np.argmax(np.stack([tiles.artefacts[name] for name in removed]), axis=0)
        left_out = {name: coords[~kept & (worst == k)] for k, name in enumerate(removed)}
    tiles = tiles.pick(np.flatnonzero(kept))
    return dataclasses.replace(tiles, left_out=left_out, origin=origin, best=best)


def _on_grid(
    view: Survey,
    found: Mask,
    geometry: grid.Geometry,
    cfg: TilingConfig,
    origin: tuple[int, int],
    least: int = 0,
) -> tuple[Coords, float]:
    """The grid's tiles with enough tissue, and the most tissue that a tile of it has.

    A slide counts as `least` pixels wide and high if it is smaller; tiles then reach beyond it.
    """
    xs, ys = (
        grid.positions(max(length, least), geometry, start)
        for length, start in zip(view.dimensions, origin, strict=True)
    )
    share = cover(found, view.downsample, xs, ys, geometry.size0)
    rows, columns = np.nonzero((share >= cfg.min_tissue_fraction) & (share > 0))
    coords = np.stack([xs[columns], ys[rows]], axis=1).astype(np.int32)
    return coords, float(share.max(initial=0.0))
