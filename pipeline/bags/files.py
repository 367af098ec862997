"""Feature files of this pipeline and of other tools, read in one way.

| format | file | coordinates |
|---|---|---|
| `pipeline` | `.h5` with `features`, `low`, `mid`, `coords` | level-0 px |
| `h5` | TRIDENT's and CLAM's `.h5` (`features`, `coords`), or with one matrix | level-0 px |
| `stamp` | STAMP's `.h5` with `feats`, `coords` | µm; older files: 256 µm count as 224 |
| `pt` | CLAM's `.pt` (one tensor), a dict of tensors, or a (low, mid, high) tuple | in a dict |
| `deepzoom` | `.npy` (N, 3 + D): DeepZoom level, column, row, then the features | addresses |
| `npy` | any other `.npy` (N, D) | none |

torch is imported only for `.pt` files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.bags import deepzoom
from pipeline.bags.encoder_names import encoder_named
from pipeline.bags.tensor_files import as_numpy, load_tensors
from pipeline.errors import ArtifactError
from pipeline.files.checksums import checksum, is_intact
from pipeline.files.hdf5 import read_hdf5
from pipeline.files.stand_ins import stand_in
from pipeline.runtime.machine_errors import is_machines

Format = Literal["pipeline", "h5", "stamp", "pt", "deepzoom", "npy"]
Unit = Literal["", "px", "um", "um_per_224", "deepzoom"]

SUFFIXES = (".h5", ".hdf5", ".pt", ".pth", ".npy")
AGAIN = (
    "extract it again (`snakemake --forcerun extraction` where this pipeline made it: whole files "
    "are left as they are)"
)
MEND = (
    "make the file again with the tool that made it, or fill these values; a feature that is often "
    "missing is better left out of all files of this teacher"
)
SHOWN = 8
STAMP_UM, STAMP_PX = 256.0, 224
BLOCK_ROWS = 8192  # rows in memory at a time, besides what the caller asked for


class EmptyFeatures(ArtifactError):
    """A feature file that is in order but has no rows."""


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """What a feature file holds, without its numbers.

    Attributes:
        path: the file.
        format: which of the layouts above it has.
        dims: features per row, by level; files without depth levels have `high` only.
        n_tiles: rows.
        has_coords: whether it has coordinates in some unit (see `coord_unit`).
        coord_unit: `px` (level 0), `um`, `um_per_224` (STAMP's first versions wrote 224 where they
            meant 256 µm), `deepzoom` addresses, or empty.
        value_bytes: of a feature in memory, 2 or 4 (where the file does not say: 4).
        encoder: what the file says made it; empty where it does not say.
    """

    path: Path
    format: Format
    dims: dict[str, int]
    n_tiles: int
    has_coords: bool
    coord_unit: Unit = ""
    value_bytes: int = 4
    encoder: str = ""


def open_features(path: str | Path, dims: Mapping[str, int] | None = None) -> FeatureFile:
    """Recognise a feature file and check its shapes; the numbers are not read.

    Args:
        path: an `.h5`, `.pt` or `.npy` file.
        dims: what the file must have, by level; None accepts anything.

    Raises:
        EmptyFeatures: it has no rows.
        ArtifactError: the file is missing, damaged, of no known layout, or not of `dims`.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ArtifactError(f"{path}: not a feature file; known suffixes: {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ArtifactError(f"{path}: no such feature file")
    if instead := stand_in(path):
        raise ArtifactError(f"{path}: {instead}")
    try:
        if path.suffix.lower() in (".h5", ".hdf5"):
            file = _describe_hdf5(path)
        elif path.suffix.lower() == ".npy":
            file = _describe_npy(path)
        else:
            file = _describe_pt(path)
    except ArtifactError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        if is_machines(error):
            raise
        raise ArtifactError(f"{path}: cannot be read as features ({error}); {AGAIN}") from None
    if file.n_tiles == 0 or min(file.dims.values()) == 0:
        raise EmptyFeatures(f"{path}: holds no features (0 rows)")
    wrong = {k: v for k, v in (dims or {}).items() if file.dims.get(k) != v}
    if wrong:
        raise ArtifactError(f"{path}: has dimensions {file.dims}, expected {dict(dims or {})}")
    return file


def read_level(
    file: FeatureFile, level: str = "high", rows: np.ndarray | None = None
) -> np.ndarray:
    """The features of one level.

    Args:
        file: from `open_features`.
        level: `low`, `mid` or `high`; `aligned` of a teacher that speaks.
        rows: which rows, in any order; None for all.

    Returns:
        float16 or float32 (len(rows) or N, D), in the order of `rows`.

    Raises:
        ArtifactError: the file lacks the level, is damaged, or has NaN or infinite values.
    """
    if level not in file.dims:
        raise ArtifactError(f"{file.path}: has no level `{level}`, only {sorted(file.dims)}")
    try:
        if file.format in ("pipeline", "h5", "stamp"):
            values = _read_hdf5(file, level, rows)
        else:
            values = _matrix(_load(file)[level])
            values = np.array(values if rows is None else values[rows])
    except ArtifactError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, IndexError) as error:
        if is_machines(error):
            raise
        raise ArtifactError(f"{file.path}: cannot be read ({error}); {AGAIN}") from None
    if values.dtype not in (np.float16, np.float32):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ArtifactError(_not_finite(file, level, values))
    return values


def read_coords(
    file: FeatureFile,
    mpp: float | None = None,
    slide_size: tuple[int, int] | None = None,
    tile_px: int = deepzoom.TILE_PX,
) -> np.ndarray | None:
    """Level-0 coordinates of the tiles' upper left corners, in the order of the features.

    Args:
        file: from `open_features`.
        mpp: µm per pixel at level 0: needed for coordinates in µm.
        slide_size: level-0 (width, height): needed for DeepZoom addresses, whose level numbers
            count from the one-pixel image.
        tile_px: side of a DeepZoom tile.

    Returns:
        int32 (N, 2) as (x, y), or None where the file has none or they cannot be converted with
        what is given.
    """
    raw = _raw_coords(file)
    if raw is None or not file.coord_unit:
        return None
    if file.coord_unit in ("um", "um_per_224"):
        microns = raw * STAMP_UM / STAMP_PX if file.coord_unit == "um_per_224" else raw
        return None if mpp is None else np.rint(microns / mpp).astype(np.int32)
    if file.coord_unit == "deepzoom":
        if slide_size is None:
            return None
        return deepzoom.to_pixels(raw, slide_size, tile_px)
    return np.rint(raw).astype(np.int32)


def _not_finite(file: FeatureFile, level: str, values: np.ndarray) -> str:
    bad = ~np.isfinite(values)
    columns = np.flatnonzero(bad.any(axis=0))
    shown = ", ".join(map(str, columns[:SHOWN])) + (", …" if len(columns) > SHOWN else "")
    remedy = AGAIN if file.format == "pipeline" else MEND
    return (
        f"{file.path}: level `{level}` has NaN or infinite values in {int(bad.any(axis=1).sum())} "
        f"of {len(values)} rows, in {len(columns)} of {values.shape[1]} features (counted from 0: "
        f"{shown}); {remedy}"
    )


# --- HDF5 -----------------------------------------------------------------------------------------


def _describe_hdf5(path: Path) -> FeatureFile:

    with read_hdf5(path) as file:
        datasets = {level: file[name] for level, name in _level_datasets(path, file).items()}
        shapes = {level: _matrix_shape(path, data.shape) for level, data in datasets.items()}
        for data in datasets.values():
            _check_written(path, data)
        half = all(data.dtype == np.float16 for data in datasets.values())
        rows = {n for n, _ in shapes.values()}
        if len(rows) > 1:
            raise ArtifactError(f"{path}: its levels have different numbers of rows: {shapes}")
        n_tiles = rows.pop()
        has_coords = "coords" in file
        if has_coords and _matrix_shape(path, file["coords"].shape)[0] != n_tiles:
            raise ArtifactError(f"{path}: {n_tiles} rows of features, but other coordinates")
        form: Format = "h5"
        unit: Unit = "px"
        if "feats" in file:
            form, unit = "stamp", _stamp_unit(file) if has_coords else ""
        elif "fingerprint" in file.attrs:
            form = "pipeline"
        encoder = encoder_named(file.attrs, *(data.attrs for data in datasets.values()))
    dims = {level: dim for level, (_, dim) in shapes.items()}
    unit = unit if has_coords else ""
    return FeatureFile(path, form, dims, n_tiles, has_coords, unit, 2 if half else 4, encoder)


def _stamp_unit(file: Any) -> Unit:
    """In what a STAMP file's coordinates count.

    Newer files state a tile's size in µm. Those of the first versions state 224, or nothing, and
    their tiles of 256 µm lie 224 apart; STAMP reads both in this way (`get_coords` in
    stamp/modeling/data.py, v2.5). A file that says neither is not guessed at.
    """
    unit, size = file.attrs.get("unit"), file.attrs.get("tile_size")
    if "tile_size_um" in file.attrs or unit == "um":
        return "um"
    if size is None:
        columns = np.unique(_matrix(np.asarray(file["coords"][()]))[:, 0])
        size = np.diff(columns).min() if len(columns) > 1 else 0
    if round(float(size)) == STAMP_PX:
        return "um_per_224"
    return "px" if unit == "px" else ""


def _level_datasets(path: Path, file: Any) -> dict[str, str]:
    """Which dataset holds which level."""
    import h5py

    for name in ("features", "feats"):
        if name in file:
            return {**{k: k for k in ("low", "mid", "aligned") if k in file}, "high": name}
    matrices = [k for k, v in file.items() if isinstance(v, h5py.Dataset) and v.ndim == 2]
    matrices = [k for k in matrices if k != "coords"]
    if len(matrices) != 1:
        raise ArtifactError(
            f"{path}: has no dataset `features` or `feats`, and {len(matrices)} other matrices "
            f"({', '.join(sorted(file)) or 'it is empty'})"
        )
    return {"high": matrices[0]}


def _check_written(path: Path, data: Any) -> None:
    """Rows that a killed writer declared and never wrote would read as zeros."""
    if data.size == 0 or data.is_virtual or data.external:
        return
    if data.chunks is None:
        missing = data.id.get_storage_size() == 0
    else:
        wanted = math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
        missing = data.id.get_num_chunks() < wanted
    if missing:
        raise ArtifactError(
            f"{path}: `{data.name}` declares {data.shape[0]} rows that were not all written; its "
            "writer was interrupted, extract this slide again"
        )


def _read_hdf5(file: FeatureFile, level: str, rows: np.ndarray | None) -> np.ndarray:

    with read_hdf5(file.path) as handle:
        data = handle[_level_datasets(file.path, handle)[level]]
        if data.ndim != 2:
            values = _matrix(data[()])
            return values if rows is None else values[rows]
        if rows is None:
            values = np.asarray(data[()])
            if not is_intact(data, checksum(values)):
                raise ArtifactError(
                    f"{file.path}: `{data.name}` is damaged, as by a copy that broke off; {AGAIN}"
                )
            return values
        # HDF5's own row selection is slow; reading blocks and choosing in memory is not.
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and (rows.min() < 0 or rows.max() >= file.n_tiles):
            raise IndexError(f"rows outside 0…{file.n_tiles - 1}")
        if len(rows) and (np.diff(rows) == 1).all():
            return np.asarray(data[rows[0] : rows[-1] + 1])
        values = np.empty((len(rows), data.shape[1]), data.dtype)
        for block in np.unique(rows // BLOCK_ROWS):
            here = rows // BLOCK_ROWS == block
            start = rows[here].min()
            values[here] = data[start : rows[here].max() + 1][rows[here] - start]
        return values


# --- .pt and .npy ---------------------------------------------------------------------------------


def _describe_pt(path: Path) -> FeatureFile:
    tensors, coords = load_tensors(path)
    shapes = {level: _matrix_shape(path, tuple(t.shape)) for level, t in tensors.items()}
    if len({n for n, _ in shapes.values()}) > 1:
        raise ArtifactError(f"{path}: its levels have different numbers of rows: {shapes}")
    n_tiles = next(iter(shapes.values()))[0]
    if coords is not None and len(coords) != n_tiles:
        raise ArtifactError(f"{path}: {n_tiles} rows of features, but {len(coords)} coordinates")
    dims = {level: dim for level, (_, dim) in shapes.items()}
    has = coords is not None
    return FeatureFile(path, "pt", dims, n_tiles, has, "px" if has else "")


def _describe_npy(path: Path) -> FeatureFile:
    data = np.load(path, mmap_mode="r", allow_pickle=False)
    n_tiles, dim = _matrix_shape(path, data.shape)
    if deepzoom.is_addressed(data):
        return FeatureFile(path, "deepzoom", {"high": dim - 3}, n_tiles, True, "deepzoom")
    return FeatureFile(path, "npy", {"high": dim}, n_tiles, False)


def _load(file: FeatureFile) -> dict[str, np.ndarray]:
    if file.format == "pt":
        return {k: as_numpy(t) for k, t in load_tensors(file.path)[0].items()}
    data = np.load(file.path, mmap_mode="r", allow_pickle=False)
    return {"high": data[:, 3:] if file.format == "deepzoom" else data}


def _raw_coords(file: FeatureFile) -> np.ndarray | None:
    if not file.has_coords:
        return None
    if file.format == "deepzoom":
        return np.array(np.load(file.path, mmap_mode="r", allow_pickle=False)[:, :3], np.float64)
    if file.format == "pt":
        return _matrix(np.asarray(load_tensors(file.path)[1], dtype=np.float64))[:, :2]

    with read_hdf5(file.path) as handle:
        return _matrix(np.asarray(handle["coords"][()], dtype=np.float64))[:, :2]


def _matrix_shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a matrix, of one vector, or of a batch of one."""
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2:
        raise ArtifactError(f"{path}: features of shape {shape}; expected (tiles, dimensions)")
    return int(shape[0]), int(shape[1])


def _matrix(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])
