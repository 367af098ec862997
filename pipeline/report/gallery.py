"""The tiles that a model weighed most and least, as pictures cut from the slide."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from pipeline.errors import SlideError
from pipeline.report import pictures
from pipeline.slides.slide import Slide, open_slide

SHOWN = 8
TILE_PX = 96
GAP_PX = 4


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Two strips of tiles, or why there are none.

    Attributes:
        absent: the reason; empty where there are strips.
        most, least: the strips, the most extreme tile first.
        most_share, least_share: for each strip, the weights of its first and its last tile, as
            multiples of an even share.
    """

    absent: str
    most: pictures.Picture | None = None
    least: pictures.Picture | None = None
    most_share: tuple[float, float] = (math.nan, math.nan)
    least_share: tuple[float, float] = (math.nan, math.nan)


def gallery(path: Path | None, table: pd.DataFrame, tile: float) -> Gallery:
    """The tiles of a slide at both ends of a model's attention.

    Args:
        path: the slide; None where the sheet has none.
        table: columns x, y (level-0 pixels) and weight, which sums to 1.
        tile: side of a tile in level-0 pixels.
    """
    if path is None:
        return Gallery("The sheet gives no path to this slide, so its tiles cannot be shown.")
    ordered = table.sort_values(["weight", "y", "x"], ascending=[False, True, True])
    count = min(SHOWN, len(ordered) // 2)
    if not count:
        return Gallery("The slide has one tile alone.")
    ends = (ordered[:count], ordered[::-1][:count])
    try:
        with open_slide(path) as slide:
            strips = [_strip(slide, end, tile) for end in ends]
    except SlideError as error:
        return Gallery(f"The tiles cannot be shown: {error}")
    shares = [tuple(end["weight"].iloc[[0, -1]] * len(ordered)) for end in ends]
    return Gallery("", strips[0], strips[1], shares[0], shares[1])


def _strip(slide: Slide, rows: pd.DataFrame, tile: float) -> pictures.Picture:
    width = len(rows) * (TILE_PX + GAP_PX) - GAP_PX
    strip = Image.new("RGB", (width, TILE_PX), "white")
    for i, (x, y) in enumerate(zip(rows["x"], rows["y"], strict=True)):
        strip.paste(Image.fromarray(cut(slide, int(x), int(y), tile)), (i * (TILE_PX + GAP_PX), 0))
    return pictures.encode(strip, width, quality=88)


def cut(slide: Slide, x: int, y: int, tile: float) -> np.ndarray:
    """One tile, uint8 (TILE_PX, TILE_PX, 3), from the coarsest level that is fine enough.

    Args:
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
