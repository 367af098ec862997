"""Attention and influence over a slide: one number a tile, painted over the thumbnail."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.whole import Config
from pipeline.encoders.tile_scales import folder, scale_of
from pipeline.files.hdf5 import read_hdf5
from pipeline.report.figures import pictures

MAP = "cividis"  # one hue order for every reader, also for the colour blind
SIGNED_MAP = "RdBu_r"  # blue lowers, red raises
SATURATED = 0.95  # of the tiles' influences are below the one that has the full colour
OPACITY = 0.72
TOP_SHARE = 0.1
FUSED = "fused"


def one_scale(config: Config, rows: pd.DataFrame) -> tuple[str, pd.DataFrame, list[str]]:
    """The rows of the teachers that see the same tiles as most, since a map has one tile size.

    Returns:
        the folder of those tiles, the rows, and the teachers left out.
    """
    teachers = [t for t in config.extraction.teachers if t in set(rows["teacher"])]
    of = {teacher: scale_of(config, teacher) for teacher in teachers}
    counts = Counter(of.values())
    chosen = min(counts, key=lambda scale: (-counts[scale], scale), default="")
    left = [teacher for teacher in teachers if of[teacher] != chosen]
    return folder(chosen), rows[~rows["teacher"].isin(left)], left


def weight_tables(teachers: Sequence[str], rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables x, y, weight: one for each teacher, and one called `fused`.

    Args:
        teachers: names, in order.
        rows: the attention table of one slide. Rows of a teacher that is none of `teachers` hold a
            model's own fusion; without such rows the fused weight is the mean over the teachers.
    """
    own = [t for t in teachers if t in set(rows["teacher"])]
    extra = rows[~rows["teacher"].isin(own)]
    tables = {teacher: normalised(rows[rows["teacher"] == teacher]) for teacher in own}
    return {**tables, FUSED: normalised(extra if len(extra) else rows)}


def shown(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The tables that are worth a map: of one teacher the fused one is the same again."""
    return [name for name in tables if name != FUSED or len(tables) != 2]


def normalised(rows: pd.DataFrame) -> pd.DataFrame:
    """One weight per tile: scores of each teacher and level brought to sum 1, then averaged.

    Scores that may be negative (ranking heads) are replaced by their ranks first.

    Returns:
        columns x, y, weight; weights sum to 1.
    """
    parts = []
    for _, group in rows.groupby(["teacher", "level"], sort=True):
        score = group["score"].astype("float64")
        if (score < 0).any():
            score = score.rank()
        total = float(score.sum())
        weight = score / total if total > 0 else score * 0 + 1 / len(score)
        parts.append(group[["x", "y"]].assign(weight=weight))
    joined = pd.concat(parts).groupby(["y", "x"], sort=True)["weight"].sum() / len(parts)
    return joined.reset_index()


def influence_table(rows: pd.DataFrame) -> pd.DataFrame | None:
    """What more tissue like each tile does to the prediction, through all teachers and levels.

    Returns:
        columns x, y, influence, in the order of `normalised`; None where the model says none.
    """
    if "influence" not in rows or rows["influence"].isna().all():
        return None
    felt = rows.assign(influence=rows["influence"].astype("float64"))
    return felt.groupby(["y", "x"], sort=True)["influence"].sum().reset_index()


def concentration(weights: NDArray[np.float64]) -> tuple[float, float]:
    """Share of the attention on the top tenth of the tiles, and what an even spread would give.

    Args:
        weights: (N,) non-negative, sum 1.
    """
    n = max(1, round(TOP_SHARE * len(weights)))
    return float(np.sort(weights)[::-1][:n].sum()), n / len(weights)


@dataclasses.dataclass(frozen=True)
class Canvas:
    """What maps are painted on.

    Attributes:
        image: the slide's thumbnail, or white.
        scale: canvas pixels per level-0 pixel.
        origin: level-0 place of its upper left corner.
        tile: side of a tile in level-0 pixels.
    """

    image: Image.Image
    scale: float
    origin: tuple[float, float]
    tile: float


def canvas(root: Path, tiles: str, slide_id: str, rows: pd.DataFrame, long_side: int) -> Canvas:
    """The slide's thumbnail, its longer side at most `long_side` pixels.

    Without thumbnail or tile file (imported coordinates) the canvas is white and just holds the
    tiles, whose side is then the smallest distance between two of them.

    Args:
        root: the cohort's results folder.
        tiles: the folder of tiles below it.
        slide_id: the slide.
        rows: its tiles, with their corners at level 0.
        long_side: in pixels.
    """
    tile, width = _tile_facts(root / tiles / f"{slide_id}.h5")
    if tile is None:
        tile = _spacing(rows)
    thumbnail = pictures.load(root / tiles / "thumbnails" / f"{slide_id}.jpg")
    if thumbnail is not None and width:
        thumbnail.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
        return Canvas(thumbnail, thumbnail.width / width, (0.0, 0.0), tile)
    x0, y0 = float(rows["x"].min()) - tile, float(rows["y"].min()) - tile
    x1, y1 = float(rows["x"].max()) + 2 * tile, float(rows["y"].max()) + 2 * tile
    scale = long_side / max(x1 - x0, y1 - y0)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    return Canvas(Image.new("RGB", size, "white"), scale, (x0, y0), tile)


def _tile_facts(path: Path) -> tuple[float | None, float | None]:
    try:
        with read_hdf5(path) as file:
            return float(file.attrs["patch_size_level0"]), float(file.attrs["level0_width"])
    except (OSError, KeyError):
        return None, None


def geojson_origin(root: Path, tiles: str, slide_id: str) -> tuple[int, int]:
    """The level-0 pixel that is (0, 0) in the slide's GeoJSON; (0, 0) where nothing was tiled.

    Args:
        root: the cohort's results folder.
        tiles: the folder of tiles below it.
        slide_id: the slide.
    """
    try:
        with read_hdf5(root / tiles / f"{slide_id}.h5") as file:
            x, y = (int(v) for v in file.attrs["geojson_origin"])
    except (OSError, KeyError):
        return 0, 0
    return x, y


def _spacing(rows: pd.DataFrame) -> float:
    gaps = np.concatenate([np.diff(np.unique(rows[axis])) for axis in ("x", "y")])
    gaps = gaps[gaps > 0]
    return float(gaps.min()) if gaps.size else 256.0


def paint(on: Canvas, table: pd.DataFrame, colours: NDArray[np.uint8]) -> Image.Image:
    """The tiles over the paled slide.

    Args:
        on: the canvas.
        table: columns x, y (level-0 pixels).
        colours: (N, 3), of its rows.
    """
    base = np.asarray(on.image.convert("L").convert("RGB"), dtype=np.float32)
    base = 255 - (255 - base) * 0.75  # paler, so that colour and not tissue carries the map
    picture = base.copy()
    x, y = table["x"].to_numpy() - on.origin[0], table["y"].to_numpy() - on.origin[1]
    left, top = (np.floor(at * on.scale).astype(int) for at in (x, y))
    right, bottom = (np.ceil((at + on.tile) * on.scale).astype(int) for at in (x, y))
    for i in range(len(table)):
        area = np.s_[max(0, top[i]) : max(0, bottom[i]), max(0, left[i]) : max(0, right[i])]
        picture[area] = base[area] * (1 - OPACITY) + colours[i] * OPACITY
    return Image.fromarray(picture.astype(np.uint8))


def by_rank(weights: pd.Series) -> NDArray[np.uint8]:
    """Colours (N, 3) of weights by their rank, so that every map uses the whole scale."""
    return _rgb(MAP, weights.rank(pct=True, method="average").to_numpy())


def by_sign(influence: pd.Series) -> NDArray[np.uint8]:
    """Colours (N, 3) of influences by their size; white is none."""
    values = influence.to_numpy(dtype="float64")
    full = float(np.quantile(np.abs(values), SATURATED)) or 1.0
    return _rgb(SIGNED_MAP, 0.5 + 0.5 * np.clip(values / full, -1, 1))


def coloured(places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Colours (N, 3) of values from 0 to 1, on one scale for several maps."""
    return _rgb(MAP, places)


def _rgb(name: str, places: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(colormaps[name](places)[:, :3] * 255, dtype=np.uint8)


def said(weights: NDArray[np.float64]) -> str:
    """How uneven the weights are, as a line of text."""
    held, even = concentration(weights)
    return (
        f"top {100 * TOP_SHARE:.0f} % of tiles hold {100 * held:.0f} % of the weight "
        f"(evenly: {100 * even:.0f} %)"
    )


def said_influence(influence: pd.Series) -> str:
    """The range of the influences, as a line of text."""
    ends = f"{signed(influence.min())} to {signed(influence.max())}"
    return f"a tenth more like one tile: {ends}"


def signed(value: float) -> str:
    """Two digits and a sign."""
    return f"{value:+.2g}".replace("-", "−")


def gradient(name: str = MAP) -> str:
    """The colour bar of a map as a CSS gradient, from its least to its most."""
    stops = _rgb(name, np.linspace(0, 1, 9))
    return ", ".join(f"rgb({r},{g},{b})" for r, g, b in stops)
