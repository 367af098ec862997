"""Single tiles of a slide in any order, as training draws them.

`pipeline.tile_reading.reader` reads a whole slide in order and keeps decoded blocks for the tiles
that follow; drawn at random, those would be the whole slide. Here nothing is kept between two
tiles, and the pixels are the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import SlideError
from pipeline.runtime.machine_errors import is_machines
from pipeline.slides.slide import open_slide
from pipeline.tile_reading.grid import Grid, level_corners


class SingleTiles:
    """An open slide, of which one tile after the other is asked for. For one thread.

    Args:
        path: the slide.
        grid: its tiles.

    Raises:
        SlideError: the slide cannot be opened, or has not the level that was tiled.
    """

    def __init__(self, path: Path, grid: Grid) -> None:
        self._slide = open_slide(path, grid.scene)
        self._grid = grid
        if grid.level >= len(self._slide.level_dimensions):
            self._slide.close()
            raise SlideError(
                f"{path.name}: has no level {grid.level}; the file changed since tiling", "changed"
            )

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        """One tile: uint8 (side, side, 3), white where it reaches beyond the slide.

        Args:
            index: its place in the slide's coordinates.

        Raises:
            SlideError: it cannot be decoded.
        """
        grid, side = self._grid, self._grid.side
        left, top = map(int, level_corners(grid, index, index + 1)[0])
        blocks = self._slide.blocks
        if blocks is None:
            x, y = round(left * grid.downsample), round(top * grid.downsample)
            return self._slide.read_region(x, y, grid.level, side, side)
        layout = blocks.layout(grid.level)
        tile = np.full((side, side, 3), 255, np.uint8)
        for number in layout.touched(left, top, side, side):
            rows, columns, block_rows, block_columns = layout.place(number, left, top, side, side)
            try:
                pixels = blocks.decode(grid.level, number)
            except Exception as error:  # decoders raise anything on damaged data
                if is_machines(error):
                    raise
                name = self._slide.path.name
                raise SlideError(f"{name}: tile {index}: {error}", "unreadable") from error
            tile[rows, columns] = pixels[block_rows, block_columns]
        return tile

    def close(self) -> None:
        """Release the file."""
        self._slide.close()
