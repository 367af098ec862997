"""Where the tiles of a feature file are on their slide's grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.bags.files import FeatureFile, read_coords
from pipeline.encoders.slide_level.positions import grid_cells, grid_step
from pipeline.errors import ArtifactError, SlideError
from pipeline.files.hdf5 import read_hdf5


def step_of(file: FeatureFile) -> float:
    """Distance of a file's neighbouring tiles in level-0 pixels.

    Raises:
        SlideError: `bad_grid`, the file does not say it.
    """
    if file.path.suffix not in (".h5", ".hdf5"):
        return grid_step({})
    with read_hdf5(file.path) as handle:
        return grid_step({**handle.attrs, **handle["coords"].attrs})


def coords_of(file: FeatureFile) -> np.ndarray:
    """Level-0 (x, y) of a file's tiles, in its order.

    Raises:
        SlideError: `bad_grid`, it has none in pixels.
    """
    coords = read_coords(file) if file.coord_unit == "px" else None
    if coords is None:
        raise SlideError(
            f"{file.path.name} has no coordinates in pixels, without which the tiles have no place",
            "bad_grid",
        )
    return coords


def cells_of_case(files: Sequence[FeatureFile]) -> np.ndarray:
    """The place of each tile of a case.

    Args:
        files: its slides' feature files, in the order of the bag.

    Returns:
        int64 (tiles, 3): slide number, column and row, in the order of the bag.

    Raises:
        ArtifactError: tiles of a slide lie on no grid.
    """
    found = []
    for slide, file in enumerate(files):
        try:
            coords, step = coords_of(file), step_of(file)
            order = np.lexsort((coords[:, 0], coords[:, 1]))
            cells = np.empty((len(coords), 2), np.int64)
            cells[order] = grid_cells(coords[order], step)
        except SlideError as error:
            raise ArtifactError(
                f"{file.path}: {error}; a slide encoder cannot be fine-tuned on it. Leave the "
                "slide out, or cut its tiles side by side"
            ) from None
        found.append(np.column_stack([np.full(len(cells), slide), cells]))
    return np.concatenate(found)
