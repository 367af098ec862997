"""Section 5: where the student looked, as maps of attention over the slides' thumbnails."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from pipeline.artifacts import read_table
from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.config.whole import Config
from pipeline.errors import ArtifactError
from pipeline.report import pictures
from pipeline.report.gallery import Gallery, gallery
from pipeline.report.geojson import attention_geojson
from pipeline.report.results import Results, describe
from pipeline.report.tables import fixed
from pipeline.scales import folder, scale_of

CANVAS_PX = 460
MAP = "cividis"  # one hue order for every reader, also for the colour blind
OPACITY = 0.72
TOP_SHARE = 0.1
FUSED = "fused"
FOLDER = "report/attention"
_ORDERS = {
    "survival": "cases of the highest and of the lowest predicted risk",
    "classification": "cases of the surest and of the least sure predictions",
    "regression": "cases of the highest and of the lowest predictions",
}
_COLUMNS = ("case_id", "slide_id", "teacher", "level", "x", "y", "score")


@dataclasses.dataclass(frozen=True)
class Map:
    """One picture: the tissue itself, one teacher's attention, or the fused one."""

    label: str
    picture: pictures.Picture
    note: str
    alt: str


@dataclasses.dataclass(frozen=True)
class CaseMaps:
    """One case on the page.

    Attributes:
        gallery: the tiles of most and of least attention, of all teachers and levels together.
        geojson: the file for QuPath, relative to the results folder.
        squares: what goes into it.
    """

    case_id: str
    slide_id: str
    title: str
    maps: tuple[Map, ...]
    gallery: Gallery
    geojson: str
    squares: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class AttentionSection:
    absent: str
    model: str
    task: str
    order: str
    cases: tuple[CaseMaps, ...]
    colours: str
    source: tuple[str, ...]


def section(results: Results) -> AttentionSection:
    """Maps of a few cases for the first task whose student left attention; else the reason.

    Raises:
        ArtifactError: an attention table lacks a column or does not open.
    """
    wanted = results.config.report.attention_cases
    student = results.config.evaluation.student
    if wanted == 0:
        return _absent("No maps were asked for (report.attention_cases is 0).")
    for task in results.tasks:
        folder = results.root / "models" / task / student
        tables = [
            (path, _read(path)) for path in sorted(folder.glob("fold_*/seed_*/attention.parquet"))
        ]
        tables = [(path, table) for path, table in tables if len(table)]
        if tables:
            return _maps(results, task, student, tables, wanted)
    return _absent(
        f"The student `{student}` left no attention with coordinates: either its features carry "
        f"none (as imported ones often do), or training.attention_cases_per_fold is 0."
    )


def _absent(reason: str) -> AttentionSection:
    return AttentionSection(reason, "", "", "", (), "", ())


def _read(path: Path) -> pd.DataFrame:
    table = read_table(path)
    absent = [c for c in _COLUMNS if c not in table.columns]
    if absent:
        raise ArtifactError(f"{path}: no column {', '.join(absent)}; delete it and train again")
    return table


def _maps(
    results: Results,
    task: str,
    student: str,
    tables: Sequence[tuple[Path, pd.DataFrame]],
    wanted: int,
) -> AttentionSection:
    by_case: dict[str, pd.DataFrame] = {}
    for _, table in tables:
        for case_id, rows in table.groupby("case_id", sort=True):
            by_case.setdefault(str(case_id), rows)  # the first seed that kept the case
    predictions = read_table(results.root / "models" / task / student / "predictions.parquet")
    order, titles = _ranked(predictions, list(by_case), results.config.tasks[task])
    cases = [
        _case(results, task, case, by_case[case], titles[case]) for case in spread(order, wanted)
    ]
    return AttentionSection(
        absent="",
        model=describe(results.config, student).label,
        task=task,
        order=_ORDERS[results.config.tasks[task].type],
        cases=tuple(cases),
        colours=gradient(),
        source=(f"models/{task}/{student}/fold_*/seed_*/attention.parquet",),
    )


def spread(ordered: Sequence[str], wanted: int) -> list[str]:
    """Cases from both ends of an order: half from the top, half from the bottom."""
    if len(ordered) <= wanted:
        return list(ordered)
    top = math.ceil(wanted / 2)
    bottom = wanted - top
    return [*ordered[:top], *(ordered[len(ordered) - bottom :] if bottom else [])]


def _ranked(
    predictions: pd.DataFrame,
    cases: Sequence[str],
    task: SurvivalTask | ClassificationTask | RegressionTask,
) -> tuple[list[str], dict[str, str]]:
    """Cases from the highest prediction to the lowest, and a line of text about each.

    Risks of different folds have no common scale, so that survival cases are ranked within theirs.
    """
    test = predictions[predictions["split"] == "test"].drop_duplicates(["fold", "case_id"])
    classes = [c for c in predictions.columns if c.startswith("prob_")]
    if isinstance(task, SurvivalTask):
        risks = test.groupby("fold")["risk"]
        test = test.assign(
            _score=risks.rank(pct=True),
            _place=risks.rank(ascending=False, method="min").astype(int),
            _of=risks.transform("size"),
        )
    elif isinstance(task, ClassificationTask):
        test = test.assign(_score=test[classes].max(axis=1))
    else:
        test = test.assign(_score=test[f"pred_{task.targets[0]}"])
    scores: dict[str, float] = {}
    titles = dict.fromkeys(cases, "")
    for row in test[test["case_id"].astype(str).isin(cases)].to_dict("records"):
        case, score = str(row["case_id"]), float(row["_score"])
        scores[case] = score
        if isinstance(task, SurvivalTask):
            outcome = "died" if row["event"] == 1 else "censored"
            titles[case] = (
                f"predicted risk number {row['_place']} of {row['_of']} in its fold; {outcome} at "
                f"{row['time']:.3g} {task.unit}"
            )
        elif isinstance(task, ClassificationTask):
            best = max(classes, key=lambda c: float(row[c]))
            titles[case] = (
                f"predicted {best.removeprefix('prob_')} ({fixed(score, 2)}), is {row['label']}"
            )
        else:
            name = task.targets[0]
            titles[case] = f"{name}: predicted {score:.3g}, is {row[f'true_{name}']:.3g}"
    return sorted(cases, key=lambda c: (-scores.get(c, -math.inf), c)), titles


def _case(results: Results, task: str, case_id: str, rows: pd.DataFrame, title: str) -> CaseMaps:
    """Maps of the case's slide that has the most tiles."""
    counts = rows.groupby("slide_id")[["x", "y"]].apply(lambda g: len(g.drop_duplicates()))
    slide_id = str(counts.sort_index().idxmax())
    mine = rows[rows["slide_id"].astype(str) == slide_id]
    tiles, mine, left = _one_scale(results.config, mine)
    canvas, scale, origin, tile = _canvas(results.root, tiles, slide_id, mine)
    maps = [
        Map(
            "tissue",
            pictures.encode(canvas, CANVAS_PX),
            "",
            f"Thumbnail of slide {slide_id}",
        )
    ]
    tables = weight_tables(results.teachers, mine)
    for name, table in tables.items():
        if name != FUSED or len(tables) != 2:  # of one teacher the fused map is the same again
            maps.append(_map(canvas, table, scale, origin, tile, name, slide_id))
    others = len(counts) - 1
    suffix = (
        f"; {others} more slide{'s' if others > 1 else ''} of this case not shown" if others else ""
    )
    suffix += f"; not shown, with tiles of another scale: {', '.join(left)}" if left else ""
    shown = gallery(_slide_path(results, slide_id), tables[FUSED], tile)
    return CaseMaps(
        case_id=case_id,
        slide_id=slide_id,
        title=title + suffix,
        maps=tuple(maps),
        gallery=shown,
        geojson=f"{FOLDER}/{task}-{slide_id}.geojson",
        squares=attention_geojson(tables, tile),
    )


def _one_scale(config: Config, rows: pd.DataFrame) -> tuple[str, pd.DataFrame, list[str]]:
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
    tables = {teacher: _normalised(rows[rows["teacher"] == teacher]) for teacher in own}
    return {**tables, FUSED: _normalised(extra if len(extra) else rows)}


def _slide_path(results: Results, slide_id: str) -> Path | None:
    """The slide's file as the slide table gives it, None where it gives none."""
    slides = results.slides
    found = slides.loc[slides["slide_id"].astype(str) == slide_id, "path"]
    return Path(str(found.iloc[0])) if len(found) and found.iloc[0] else None


def _normalised(rows: pd.DataFrame) -> pd.DataFrame:
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


def concentration(weights: NDArray[np.float64]) -> tuple[float, float]:
    """Share of the attention on the top tenth of the tiles, and what an even spread would give.

    Args:
        weights: (N,) non-negative, sum 1.
    """
    n = max(1, round(TOP_SHARE * len(weights)))
    return float(np.sort(weights)[::-1][:n].sum()), n / len(weights)


def _canvas(
    root: Path, tiles: str, slide_id: str, rows: pd.DataFrame
) -> tuple[Image.Image, float, tuple[float, float], float]:
    """The slide's thumbnail, canvas pixels per level-0 pixel, level-0 origin, tile side (level 0).

    Without thumbnail or tile file (imported coordinates) the canvas is white and just holds the
    tiles, whose side is then the smallest distance between two of them.
    """
    tile, width = _tile_facts(root / tiles / f"{slide_id}.h5")
    if tile is None:
        tile = _spacing(rows)
    thumbnail = pictures.load(root / tiles / "thumbnails" / f"{slide_id}.jpg")
    if thumbnail is not None and width:
        thumbnail.thumbnail((CANVAS_PX, CANVAS_PX), Image.Resampling.LANCZOS)
        return thumbnail, thumbnail.width / width, (0.0, 0.0), tile
    x0, y0 = float(rows["x"].min()) - tile, float(rows["y"].min()) - tile
    x1, y1 = float(rows["x"].max()) + 2 * tile, float(rows["y"].max()) + 2 * tile
    scale = CANVAS_PX / max(x1 - x0, y1 - y0)
    size = (max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))
    return Image.new("RGB", size, "white"), scale, (x0, y0), tile


def _tile_facts(path: Path) -> tuple[float | None, float | None]:
    try:
        with h5py.File(path, "r") as file:
            return float(file.attrs["patch_size_level0"]), float(file.attrs["level0_width"])
    except (OSError, KeyError):
        return None, None


def _spacing(rows: pd.DataFrame) -> float:
    gaps = np.concatenate([np.diff(np.unique(rows[axis])) for axis in ("x", "y")])
    gaps = gaps[gaps > 0]
    return float(gaps.min()) if gaps.size else 256.0


def _map(
    canvas: Image.Image,
    table: pd.DataFrame,
    scale: float,
    origin: tuple[float, float],
    tile: float,
    label: str,
    slide_id: str,
) -> Map:
    weights = table["weight"].to_numpy(dtype="float64")
    ranks = pd.Series(weights).rank(pct=True, method="average").to_numpy()
    colours = (colormaps[MAP](ranks)[:, :3] * 255).astype(np.uint8)
    base = np.asarray(canvas.convert("L").convert("RGB"), dtype=np.float32)
    base = 255 - (255 - base) * 0.75  # paler, so that colour and not tissue carries the map
    picture = base.copy()
    left = np.floor((table["x"].to_numpy() - origin[0]) * scale).astype(int)
    top = np.floor((table["y"].to_numpy() - origin[1]) * scale).astype(int)
    right = np.ceil((table["x"].to_numpy() - origin[0] + tile) * scale).astype(int)
    bottom = np.ceil((table["y"].to_numpy() - origin[1] + tile) * scale).astype(int)
    for i in range(len(table)):
        area = np.s_[max(0, top[i]) : max(0, bottom[i]), max(0, left[i]) : max(0, right[i])]
        picture[area] = base[area] * (1 - OPACITY) + colours[i] * OPACITY
    held, even = concentration(weights)
    return Map(
        label=label,
        picture=pictures.encode(Image.fromarray(picture.astype(np.uint8)), CANVAS_PX),
        note=f"top {100 * TOP_SHARE:.0f} % of tiles hold {100 * held:.0f} % of the weight "
        f"(evenly: {100 * even:.0f} %)",
        alt=f"Attention of {label} over slide {slide_id}",
    )


def gradient() -> str:
    """The colour bar as a CSS gradient, least to most attention."""
    stops = colormaps[MAP](np.linspace(0, 1, 9))[:, :3] * 255
    return ", ".join(f"rgb({r:.0f},{g:.0f},{b:.0f})" for r, g, b in stops)
