"""The tissue class of each tile, from what a pathologist drew."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from pipeline.errors import SlideError, UserError
from pipeline.files.hdf5 import read_hdf5
from pipeline.slides.masks import read_regions
from pipeline.slides.scanned import Frame, inside
from pipeline.slides.tile_coverage import cover_at

RASTER_UM = 8.0  # annotations are compared with tiles at this many µm per pixel


@dataclasses.dataclass(frozen=True)
class TileLabels:
    """A slide's tiles and their classes.

    Attributes:
        coords: int32 (N, 2), level-0 (x, y).
        names: object (N,), the class, '' where there is none.
    """

    coords: np.ndarray
    names: np.ndarray


def read_labels(tiles: Path, annotation: Path | None, least_cover: float) -> TileLabels | None:
    """The classes of a slide's tiles.

    Args:
        tiles: the slide's tile file.
        annotation: GeoJSON with class names, or an image with a legend next to it, as
            `pipeline.slides.masks` reads them; None: the labels that tiling wrote, where the
            slide's own mask has classes.
        least_cover: a tile that its most frequent class covers less than this has no label.

    Returns:
        None where the slide has no tiles or no annotation.

    Raises:
        UserError: the annotation cannot be read, or names no classes.
    """
    if not tiles.is_file():
        return None
    with read_hdf5(tiles) as file:
        coords = np.asarray(file["coords"][()], dtype=np.int32)
        size = int(file.attrs["level0_width"]), int(file.attrs["level0_height"])
        left, top, width, height = map(int, file.attrs.get("scanned_window", (0, 0, *size)))
        x, y = map(int, file.attrs.get("geojson_origin", (0, 0)))
        side, mpp = int(file.attrs["patch_size_level0"]), float(file.attrs["mpp_level0"])
        if annotation is None:
            if "label" not in file:
                return None
            return TileLabels(coords, np.array(file["label"].asstr()[()], dtype=object))
    if not annotation.is_file():
        return None
    downsample = max(1.0, RASTER_UM / mpp)
    shape = max(1, round(size[1] / downsample)), max(1, round(size[0] / downsample))
    try:
        window = (left, top, width, height)
        frame = Frame((x, y), window, size, inside(window, shape, downsample))
        regions = read_regions(annotation, frame, downsample)
    except SlideError as error:
        raise UserError(f"probing.annotations: {error.reason}") from None
    if not regions.labelled:
        raise UserError(f"probing.annotations: {annotation} names no classes of tissue")
    each = np.stack(
        [
            cover_at((regions.classes == k + 1).astype(np.uint8), downsample, coords, side)
            for k in range(len(regions.names))
        ]
    )
    names = np.array(regions.names, dtype=object)[each.argmax(0)]
    names[each.max(0) < least_cover] = ""
    return TileLabels(coords, names)
