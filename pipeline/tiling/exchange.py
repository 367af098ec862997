"""Tile coordinates for TRIDENT and CLAM, and from them.

All three tools keep a dataset `coords` of level-0 upper left corners and describe the tiles in its
attributes; they differ in what they describe:

- TRIDENT (github.com/mahmoodlab/TRIDENT, WSIPatcher): the tile's size after rescaling, and two
  magnifications whose quotient gives its size at level 0. Nominal powers would make a tile of a
  0.24 µm/px slide 4 % too small there, so that the exact quotient is written where it differs.
- CLAM (github.com/mahmoodlab/CLAM, WholeSlideImage): the pyramid level and the tile's size in
  pixels of that level; the scale in µm is not known to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.files.artifacts import atomic_path
from pipeline.files.hdf5 import read_hdf5, write_hdf5
from pipeline.runtime.machine_errors import is_machines
from pipeline.slides.tile_coverage import Coords

TRIDENT = (
    "patch_size",
    "patch_size_level0",
    "level0_magnification",
    "target_magnification",
    "overlap",
    "name",
    "savetodir",
    "level0_width",
    "level0_height",
)
CLAM = (
    "patch_size",
    "patch_level",
    "downsample",
    "downsampled_level_dim",
    "level_dim",
    "name",
    "save_path",
)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The tiles of one slide, as far as a file describes them.

    Attributes:
        name: the slide.
        coords: int32 (N, 2), level-0 (x, y), sorted by (y, x).
        tile_px: side of a tile as an encoder sees it.
        size0: side of a tile in level-0 pixels.
        overlap_px: what neighbours share, in pixels like `tile_px`; 0 where a file does not say.
        target_magnification: nominal power of the tiles, or None.
        dimensions: (width, height) of level 0.
        level: pyramid level to read, or None.
        downsample: level-0 pixels per pixel of that level, or None.
        level_dimensions: (width, height) of that level, or None.
    """

    name: str
    coords: Coords
    tile_px: int
    size0: int
    overlap_px: int
    target_magnification: float | None
    dimensions: tuple[int, int]
    level: int | None
    downsample: float | None
    level_dimensions: tuple[int, int] | None


def read_tiles(path: str | Path) -> Tiles:
    """Read a file of this pipeline.

    Raises:
        ArtifactError: it cannot be opened or lacks something.
    """
    coords, facts = _open(path, "root")
    return _described(
        path,
        lambda: dataclasses.replace(
            _trident(coords, facts),
            level=int(facts["read_level"]),
            downsample=float(facts["read_downsample"]),
            level_dimensions=(int(facts["read_level_width"]), int(facts["read_level_height"])),
        ),
    )


def read_any(path: str | Path) -> tuple[Tiles, str]:
    """Read a file of TRIDENT, of CLAM or of this pipeline, which is also one of TRIDENT.

    Returns:
        The tiles, and `trident` or `clam`.

    Raises:
        ArtifactError: it cannot be opened or lacks something.
    """
    _, facts = _open(path, "coords")
    if "patch_level" in facts:
        return read_clam(path), "clam"
    return read_trident(path), "trident"


def write_trident(tiles: Tiles, folder: str | Path) -> Path:
    """Write TRIDENT's file below its job folder, by the name under which it looks for it.

    Returns:
        The file.
    """
    target = tiles.target_magnification or 20.0
    exact = target * tiles.size0 / tiles.tile_px
    nominal = round(exact) if round(tiles.tile_px * round(exact) / target) == tiles.size0 else exact
    attributes = {
        "patch_size": tiles.tile_px,
        "patch_size_level0": tiles.size0,
        "level0_magnification": nominal,
        "target_magnification": int(target) if target == int(target) else target,
        "overlap": tiles.overlap_px,
        "name": tiles.name,
        "savetodir": str(folder),
        "level0_width": tiles.dimensions[0],
        "level0_height": tiles.dimensions[1],
    }
    group = f"{target:g}x_{tiles.tile_px}px_{tiles.overlap_px}px_overlap"
    path = Path(folder) / group / "patches" / f"{tiles.name}_patches.h5"
    _write(path, tiles.coords, attributes)
    return path


def read_trident(path: str | Path) -> Tiles:
    """Read a `_patches.h5` of TRIDENT.

    Raises:
        ArtifactError: it cannot be opened or lacks something.
    """
    coords, facts = _open(path, "coords")
    return _described(path, lambda: _trident(coords, facts))


def write_clam(tiles: Tiles, folder: str | Path) -> Path:
    """Write `patches/<name>.h5` below CLAM's folder of patches.

    Returns:
        The file.

    Raises:
        ArtifactError: the tiles come from a file that names no pyramid level.
    """
    if tiles.level is None or tiles.downsample is None or tiles.level_dimensions is None:
        raise ArtifactError(f"{tiles.name}: CLAM needs a pyramid level, which these tiles lack")
    path = Path(folder) / "patches" / f"{tiles.name}.h5"
    attributes = {
        "patch_size": round(tiles.size0 / tiles.downsample),
        "patch_level": tiles.level,
        "downsample": (tiles.downsample, tiles.downsample),
        "downsampled_level_dim": tiles.level_dimensions,
        "level_dim": tiles.level_dimensions,
        "name": tiles.name,
        "save_path": str(path.parent),
    }
    _write(path, tiles.coords, attributes)
    return path


def read_clam(path: str | Path) -> Tiles:
    """Read a `patches/<name>.h5` of CLAM.

    Raises:
        ArtifactError: it cannot be opened or lacks something.
    """
    coords, facts = _open(path, "coords")

    def describe() -> Tiles:
        downsample = np.asarray(facts["downsample"], float).ravel()
        width, height = (int(v) for v in facts["level_dim"])
        return Tiles(
            name=str(facts["name"]),
            coords=coords,
            tile_px=int(facts["patch_size"]),
            size0=round(int(facts["patch_size"]) * float(downsample[0])),
            overlap_px=0,
            target_magnification=None,
            dimensions=(round(width * downsample[0]), round(height * downsample[-1])),
            level=int(facts["patch_level"]),
            downsample=float(downsample.mean()),
            level_dimensions=(width, height),
        )

    return _described(path, describe)


def export(tiles: Path, folder: Path, tool: Literal["trident", "clam"]) -> list[Path]:
    """Write the slides of a folder of tiles for another tool; those without a tile are left out.

    Args:
        tiles: the folder of tiles.
        folder: where to write.
        tool: the other tool.
    """
    writers = {"trident": write_trident, "clam": write_clam}
    found = (read_tiles(path) for path in sorted(tiles.glob("*.h5")))
    return [writers[tool](slide, folder) for slide in found if len(slide.coords)]


def _open(path: str | Path, place: Literal["root", "coords"]) -> tuple[Coords, dict[str, Any]]:
    try:
        with read_hdf5(path) as file:
            dataset = file["coords"]
            facts: Mapping[str, Any] = dict((file if place == "root" else dataset).attrs)
            coords = np.asarray(dataset, np.int64).reshape(-1, 2)
    except (OSError, KeyError, ValueError, TypeError) as error:
        if is_machines(error):
            raise
        raise ArtifactError(f"{path}: no readable `coords` ({error})") from None
    order = np.lexsort((coords[:, 0], coords[:, 1]))
    return coords[order].astype(np.int32), dict(facts)


def _trident(coords: Coords, facts: Mapping[str, Any]) -> Tiles:
    """What TRIDENT's attributes say; they name no pyramid level."""
    return Tiles(
        name=str(facts["name"]),
        coords=coords,
        tile_px=int(facts["patch_size"]),
        size0=int(facts["patch_size_level0"]),
        overlap_px=int(facts["overlap"]),
        target_magnification=float(facts["target_magnification"]),
        dimensions=(int(facts["level0_width"]), int(facts["level0_height"])),
        level=None,
        downsample=None,
        level_dimensions=None,
    )


def _described(path: str | Path, describe: Any) -> Tiles:
    try:
        tiles: Tiles = describe()
    except KeyError as error:
        raise ArtifactError(f"{path}: `coords` lacks the attribute {error}") from None
    return tiles


def _write(path: Path, coords: Coords, attributes: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary, write_hdf5(temporary, "v110") as file:
        dataset = file.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(1024, 2))
        dataset.attrs.update(attributes)
