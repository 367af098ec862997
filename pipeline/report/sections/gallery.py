"""The tiles at both ends of what a model says of them, as pictures cut from the slide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pipeline.errors import SlideError
from pipeline.report.figures import pictures
from pipeline.slides.base import LARGEST, Scene, Slide
from pipeline.slides.slide import open_slide

SHOWN = 8
TILE_PX = 96
GAP_PX = 4


@dataclasses.dataclass(frozen=True)
class Strip:
    """Tiles side by side.

    Attributes:
        what: what they have in common.
        note: the values of the first and the last tile.
        picture: the tiles, the most extreme one first.
    """

    what: str
    note: str
    picture: pictures.Picture


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Strips of tiles, or why there are none.

    Attributes:
        absent: the reason; empty where there are strips.
        strips: in pairs, a quantity's highest and its lowest values.
    """

    absent: str
    strips: tuple[Strip, ...] = ()


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What tiles are ordered by.

    Attributes:
        table: columns x, y (level-0 pixels) and `column`.
        column: the values.
        highest, lowest: what tiles of its highest and lowest values are called.
        note: says its values at two tiles.
    """

    table: pd.DataFrame
    column: str
    highest: str
    lowest: str
    note: Callable[[float, float], str]


def gallery(
    path: Path | None, quantities: Sequence[Quantity], tile: float, scene: Scene = LARGEST
) -> Gallery:
    """The tiles of a slide at both ends of each quantity.

    Args:
        path: the slide; None where the sheet has none.
        quantities: what to order the tiles by; of the same tiles.
        tile: side of a tile in level-0 pixels.
        scene: which scene of its file, as `tiling.scene` says.
    """
    if path is None:
        return Gallery("The sheet gives no path to this slide, so its tiles cannot be shown.")
    if any(len(quantity.table) < 2 for quantity in quantities):
        return Gallery("The slide has only one tile.")
    try:
        with open_slide(path, scene) as slide:
            return Gallery("", tuple(s for q in quantities for s in _ends(slide, q, tile)))
    except SlideError as error:
        return Gallery(f"The tiles cannot be shown: {error}")


def _ends(slide: Slide, quantity: Quantity, tile: float) -> Iterator[Strip]:
    by = [quantity.column, "y", "x"]
    ordered = quantity.table.sort_values(by, ascending=[False, True, True])
    count = min(SHOWN, len(ordered) // 2)
    ends = ((quantity.highest, ordered[:count]), (quantity.lowest, ordered[::-1][:count]))
    for what, end in ends:
        note = quantity.note(*end[quantity.column].iloc[[0, -1]])
        yield Strip(what, note, _strip(slide, end, tile))


def _strip(slide: Slide, rows: pd.DataFrame, tile: float) -> pictures.Picture:
    width = len(rows) * (TILE_PX + GAP_PX) - GAP_PX
    strip = Image.new("RGB", (width, TILE_PX), "white")
    for i, (x, y) in enumerate(zip(rows["x"], rows["y"], strict=True)):
        strip.paste(Image.fromarray(cut(slide, int(x), int(y), tile)), (i * (TILE_PX + GAP_PX), 0))
    return pictures.encode(strip, width, quality=88)


def cut(slide: Slide, x: int, y: int, tile: float) -> np.ndarray:
    """One tile, uint8 (TILE_PX, TILE_PX, 3), from the coarsest level that is fine enough.

    Args:
        slide: the open slide.
        x, y: its upper left corner at level 0.
        tile: its side at level 0.
    """
    wanted = tile / TILE_PX
    downsamples = slide.level_downsamples
    level = max((i for i, d in enumerate(downsamples) if d <= max(wanted, 1.0)), default=0)
    side = max(1, round(tile / downsamples[level]))
    region = slide.read_region(x, y, level, side, side)
    kind = cv2.INTER_AREA if side > TILE_PX else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(region, (TILE_PX, TILE_PX), interpolation=kind))
