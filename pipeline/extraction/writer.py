"""Feature files: written in bounded memory, renamed into place when whole, recognised when done."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.encoders.registry import ALIGNED
from pipeline.errors import SlideError
from pipeline.files.artifacts import is_complete, new_hdf5
from pipeline.files.checksums import checksum, is_intact, seal
from pipeline.files.hdf5 import read_hdf5
from pipeline.runtime.machine_errors import is_machines
from pipeline.tile_reading.grid import Grid

ROWS = 1024  # rows per HDF5 chunk, and rows kept before they are written
NAMES = {"high": "features", "low": "low", "mid": "mid", ALIGNED: ALIGNED}
DROPPED = "n_dropped"


@dataclasses.dataclass(frozen=True)
class Block:
    """Features of some tiles of one slide.

    Attributes:
        rows: int64 (n,), the tiles' places in the slide's coordinates.
        features: level to float16 (n, D).
        dropped: how many unreadable tiles were left out besides these.
    """

    rows: np.ndarray
    features: Mapping[str, np.ndarray]
    dropped: int = 0


@contextlib.contextmanager
def feature_file(
    path: Path, grid: Grid, dims: Mapping[str, int], attributes: Mapping[str, Any]
) -> Iterator[Callable[[Block], None]]:
    """A function that appends blocks to a feature file, which appears when the block ends well.

    Args:
        path: the file to make.
        grid: the slide's tiles.
        dims: level to dimension.
        attributes: root attributes, with `fingerprint`.

    Raises:
        SlideError: `not_finite`, a feature is NaN or infinite in float16; `unreadable`, no tile
            of the slide could be read.
    """
    rows: list[np.ndarray] = []
    waiting: list[Block] = []
    sums: dict[str, int] = {}
    dropped = 0
    with new_hdf5(path, attributes) as file:
        rows_per_chunk = max(1, min(ROWS, len(grid.coords)))
        data = {
            level: _dataset(file, NAMES[level], dim, rows_per_chunk) for level, dim in dims.items()
        }

        def append(block: Block) -> None:
            nonlocal dropped
            _check_finite(block)
            rows.append(block.rows)
            waiting.append(block)
            dropped += block.dropped
            if sum(len(b.rows) for b in waiting) >= ROWS:
                _flush(data, waiting, sums)

        yield append
        _flush(data, waiting, sums)
        kept = np.concatenate(rows) if rows else np.empty(0, np.int64)
        if not len(kept):
            raise SlideError("none of its tiles can be read", "unreadable")
        coords = file.create_dataset("coords", data=grid.coords[kept])
        coords.attrs.update(grid.attributes)
        for level, total in sums.items():
            seal(data[level], total)
        file.attrs[DROPPED] = dropped


def facts(path: Path) -> dict[str, Any]:
    """What a feature file holds, for the slide's record."""
    with read_hdf5(path) as file:
        dims = {level: int(file[name].shape[1]) for level, name in NAMES.items() if name in file}
        found = {"n_tiles": int(file["features" if "high" in dims else "coords"].shape[0])}
        dropped = int(file.attrs.get(DROPPED, 0))
    more = {DROPPED: dropped} if dropped else {}
    return {**found, "dims": dims, "format": "pipeline", **more}


def is_finished(path: Path, fingerprint: str, grid: Grid, levels: Sequence[str]) -> bool:
    """Whether a slide needs no work: the file opens, was made from the same, and is sound.

    Sound is: all levels are there with one row per tile, the coordinates are the tiles' in their
    order (but for tiles that were dropped and counted), every value is finite, and
    the checksums are right.

    Args:
        path: of the feature file.
        fingerprint: digest of what decides the result.
        grid: the slide's tiles.
        levels: those that the file must have.

    Raises:
        OSError: the disk does not answer, which says nothing of the file.
    """
    if not is_complete(path, fingerprint):
        return False
    try:
        with read_hdf5(path) as file:
            coords = file["coords"][()]
            if len(coords) + int(file.attrs[DROPPED]) != len(grid.coords):
                return False
            if not _in_order(coords, grid.coords):
                return False
            for level in levels:
                data = file[NAMES[level]]
                if data.ndim != 2 or len(data) != len(coords):
                    return False
                total = 0
                for start in range(0, len(data), 8 * ROWS):
                    values = data[start : start + 8 * ROWS]
                    total = checksum(values, total)
                    if not np.isfinite(values).all():
                        return False
                if not is_intact(data, total):
                    return False
    except (OSError, KeyError) as error:
        if is_machines(error):
            raise
        return False
    return True


def _in_order(some: np.ndarray, everything: np.ndarray) -> bool:
    """Whether `some` is `everything` with rows left out."""
    if len(some) == len(everything):
        return bool(np.array_equal(some, everything))
    place = {tuple(row): i for i, row in enumerate(everything.tolist())}
    places = [place.get(tuple(row), -1) for row in some.tolist()]
    return min(places, default=0) >= 0 and bool(np.all(np.diff(places) > 0))


def _dataset(file: h5py.File, name: str, dim: int, rows: int) -> h5py.Dataset:
    return file.create_dataset(
        name, shape=(0, dim), maxshape=(None, dim), chunks=(rows, dim), dtype=np.float16
    )


def _flush(data: Mapping[str, h5py.Dataset], waiting: list[Block], sums: dict[str, int]) -> None:
    count = sum(len(block.rows) for block in waiting)
    if count:
        for level, dataset in data.items():
            start = len(dataset)
            dataset.resize(start + count, axis=0)
            values = np.concatenate([block.features[level] for block in waiting])
            dataset[start:] = values
            sums[level] = checksum(values.astype(dataset.dtype, copy=False), sums.get(level, 0))
    waiting.clear()


def _check_finite(block: Block) -> None:
    for level, values in block.features.items():
        if not np.isfinite(values).all():
            raise SlideError(
                f"the encoder gives NaN or infinite values at level {level}; set "
                "extraction.precision: fp32 or bf16",
                "not_finite",
            )
