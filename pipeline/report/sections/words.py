"""Section 5: what the teachers with a text tower say, asked in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.encoders import speaking
from pipeline.encoders.caption_recall import AT
from pipeline.encoders.tile_scales import folder, scale_of
from pipeline.errors import SlideError
from pipeline.files.artifacts import read_json
from pipeline.files.parquet import read_table
from pipeline.report.figures import maps, pictures
from pipeline.report.figures.charts import Drawing
from pipeline.report.figures.geojson import squares_geojson
from pipeline.report.figures.shots import Line, shots
from pipeline.report.results import Results
from pipeline.report.sections.gallery import GAP_PX, TILE_PX, cut
from pipeline.report.tables.cells import Column, Table, count, number, text
from pipeline.slides.slide import open_slide

CANVAS_PX = 300
WAYS = {"tile_to_text": "tile → text", "text_to_tile": "text → tile"}
FOLDER = "report/words"


@dataclasses.dataclass(frozen=True)
class WordMap:
    """One class over one slide."""

    label: str
    picture: pictures.Picture
    image: Image.Image
    note: str
    alt: str


@dataclasses.dataclass(frozen=True)
class SlideMaps:
    """A case's slide with a map of each class.

    Attributes:
        title: case, slide and what the case is.
        maps: the tissue, then a map a class.
        name: of the files for QuPath and of the pictures, below `FOLDER`.
        squares: what goes into the GeoJSON.
    """

    title: str
    maps: tuple[WordMap, ...]
    name: str
    squares: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The tiles nearest to the words of one class."""

    label: str
    words: str
    picture: pictures.Picture


@dataclasses.dataclass(frozen=True)
class Spoken:
    """What one teacher says of one task.

    Attributes:
        teacher, task: which.
        chosen: how each fold pools, as a sentence.
        maps: of a few cases.
        sheets: one a class.
    """

    teacher: str
    task: str
    chosen: str
    maps: tuple[SlideMaps, ...]
    sheets: tuple[Sheet, ...]


@dataclasses.dataclass(frozen=True)
class WordsSection:
    """All that was asked in words.

    Attributes:
        spread: for each task, balanced accuracy over draws of prompts.
        curves: for each task, what linear probes reach with few cases.
        spoken: one for each teacher and task.
        recall: of captions; None without.
        tissue: shares of tissue classes; None without.
        colours: of the maps, as a CSS gradient.
        silent: teachers that could not be asked, as a sentence; empty: none.
    """

    spread: tuple[Table, ...]
    curves: tuple[Drawing, ...]
    spoken: tuple[Spoken, ...]
    recall: Table | None
    tissue: Table | None
    colours: str
    silent: str


def section(results: Results) -> WordsSection | None:
    """Build the part; None where nothing was asked in words."""
    teachers = speaking.speaking(results.config)
    if not teachers:
        return None
    found = {t: _Found.read(results.root / "vision_language" / t) for t in teachers}
    tasks = [task for task in results.tasks if task in speaking.asked(results.config)]
    return WordsSection(
        spread=tuple(_spread(task, found) for task in tasks),
        curves=tuple(d for task in tasks if (d := _curve(results, task, found)) is not None),
        spoken=tuple(_spoken(results, t, task, found[t]) for task in tasks for t in teachers),
        recall=_recall(found),
        tissue=_tissue(found),
        colours=maps.gradient(),
        silent=_silent(speaking.silent(results.config)),
    )


def _silent(teachers: Sequence[str]) -> str:
    if not teachers:
        return ""
    return (
        f"Not asked: {', '.join(teachers)}. The text tower runs with its authors' package alone; "
        "image features are used as any teacher's."
    )


@dataclasses.dataclass(frozen=True)
class _Found:
    """A teacher's files."""

    facts: Mapping[str, Any]
    spread: pd.DataFrame
    few_shot: pd.DataFrame
    retrieved: pd.DataFrame
    tissue: pd.DataFrame

    @classmethod
    def read(cls, where: Path) -> _Found:
        names = ("spread", "few_shot", "retrieved", "tissue")
        tables = [read_table(where / f"{name}.parquet") for name in names]
        return cls(dict(read_json(where / "zero_shot.json")), *tables)


def _spread(task: str, found: Mapping[str, _Found]) -> Table:
    rows = []
    for teacher, one in found.items():
        mine = one.spread[one.spread["task"] == task]
        rows += [
            [
                text(teacher),
                text(_pooled(row["top_k"])),
                text(_smoothed(row["smoothing"])),
                *(number(row[key]) for key in ("median", "q25", "q75", "min", "max", "ensemble")),
            ]
            for row in mine.to_dict("records")
        ]
    draws = max((int(one.spread["draws"].max()) for one in found.values() if len(one.spread)),
                default=0)  # fmt: skip
    return Table(
        caption=f"Zero-shot balanced accuracy of {task} over {draws} draws of prompts",
        columns=[
            Column("teacher"),
            Column("pooling"),
            Column("smoothing"),
            Column("median", True),
            Column("25 %", True),
            Column("75 %", True),
            Column("least", True),
            Column("most", True),
            Column("all words", True, "all synonyms in all templates, averaged"),
        ],
        rows=rows,
        read="Each draw takes one synonym of every class and some of the templates; all tested "
        "cases together. No row is chosen by this table: the tables of the task have the one that "
        "each fold's validation part prefers, with all words.",
        source=tuple(f"vision_language/{teacher}/spread.csv" for teacher in found),
    )


def _pooled(k: int) -> str:
    return "mean of all tiles" if k == 0 else f"mean of the top {k}" if k > 1 else "highest tile"


def _smoothed(k: int) -> str:
    return "none" if k <= 1 else f"{k} nearest tiles"


def _curve(results: Results, task: str, found: Mapping[str, _Found]) -> Drawing | None:
    metrics = read_table(results.root / "evaluation" / task / "metrics.parquet")
    rows = metrics[metrics["metric"] == "balanced_accuracy"].set_index("model")["value"]
    lines = []
    for teacher, one in found.items():
        mine = one.few_shot[one.few_shot["task"] == task]
        if len(mine):
            words = rows.get(speaking.model_name(teacher), float("nan"))
            numbers, median, low, high = (
                mine[c].tolist() for c in ("shots", "median", "q25", "q75")
            )
            lines.append(Line(teacher, numbers, median, low, high, float(words)))
    if not lines:
        return None
    classes = len(next(iter(found.values())).facts["tasks"][task]["words"])
    source = tuple(f"vision_language/{teacher}/few_shot.csv" for teacher in found)
    return shots(f"words-{task}", task, lines, 1 / classes, source)


def _spoken(results: Results, teacher: str, task: str, found: _Found) -> Spoken:
    facts = found.facts["tasks"][task]
    ways = [f"{_pooled(f['top_k'])}, smoothing {_smoothed(f['smoothing'])}" for f in facts["folds"]]
    counts = {way: ways.count(way) for way in dict.fromkeys(ways)}
    chosen = "; ".join(f"{way} in {n} of {len(ways)} folds" for way, n in counts.items())
    return Spoken(
        teacher=teacher,
        task=task,
        chosen=chosen,
        maps=tuple(_maps(results, teacher, task, one) for one in facts["maps"]),
        sheets=tuple(
            _sheet(results, teacher, name, words, found.retrieved, task)
            for name, words in facts["words"].items()
        ),
    )


def _maps(results: Results, teacher: str, task: str, one: Mapping[str, str]) -> SlideMaps:
    slide = one["slide_id"]
    path = results.root / "vision_language" / teacher / "maps" / task / f"{slide}.parquet"
    table = read_table(path)
    classes = [c for c in table.columns if c not in ("x", "y")]
    tiles = folder(scale_of(results.config, teacher))
    canvas = maps.canvas(results.root, tiles, slide, table, CANVAS_PX)
    # Of what a class has over the others: a word that is near to every tile says nothing.
    scores = table[classes].sub(table[classes].mean(axis=1), axis=0)
    drawn = [WordMap("tissue", pictures.encode(canvas.image, CANVAS_PX), canvas.image, "",
                     f"Thumbnail of slide {slide}")]  # fmt: skip
    low, high = float(scores.to_numpy().min()), float(scores.to_numpy().max())
    for name in classes:
        places = (scores[name].to_numpy() - low) / max(high - low, 1e-9)
        image = maps.paint(canvas, table, maps.coloured(places))
        share = float((table[classes].idxmax(axis=1) == name).mean())
        drawn.append(
            WordMap(
                label=name,
                picture=pictures.encode(image, CANVAS_PX),
                image=image,
                note=f"nearest for {100 * share:.0f} % of tiles",
                alt=f"Cosines of {name} over slide {slide}",
            )
        )
    origin = maps.geojson_origin(results.root, tiles, slide)
    return SlideMaps(
        title=f"{one['case_id']}, {slide}: is {one['label']}",
        maps=tuple(drawn),
        name=f"{task}-{teacher}-{slide}",
        squares=squares_geojson(table, {f"cosine {c}": table[c] for c in classes}, canvas.tile,
                                origin),
    )  # fmt: skip


def _sheet(
    results: Results,
    teacher: str,
    name: str,
    words: Sequence[str],
    retrieved: pd.DataFrame,
    task: str,
) -> Sheet:
    mine = retrieved[(retrieved["task"] == task) & (retrieved["class"] == name)]
    paths = dict(zip(results.slides["slide_id"], results.slides["path"], strict=True))
    tiles = folder(scale_of(results.config, teacher))
    width = max(1, len(mine)) * (TILE_PX + GAP_PX) - GAP_PX
    strip = Image.new("RGB", (width, TILE_PX), "white")
    for i, row in enumerate(mine.sort_values("place").to_dict("records")):
        side = maps.canvas(results.root, tiles, row["slide_id"], pd.DataFrame([row]), 8).tile
        try:
            with open_slide(
                Path(str(paths[row["slide_id"]])), results.config.tiling.scene
            ) as slide:
                tile = cut(slide, int(row["x"]), int(row["y"]), side)
        except (SlideError, KeyError):  # a slide that is gone leaves its place white
            tile = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
        strip.paste(Image.fromarray(tile), (i * (TILE_PX + GAP_PX), 0))
    return Sheet(name, ", ".join(words), pictures.encode(strip, width, quality=88))


def _recall(found: Mapping[str, _Found]) -> Table | None:
    asked = {t: one.facts["recall"] for t, one in found.items() if one.facts["recall"]}
    if not asked:
        return None
    rows = [
        [
            text(teacher),
            text(label),
            *(number(facts.get(way, {}).get(str(k))) for k in AT),
            *(number(facts.get(f"{way}_chance", {}).get(str(k))) for k in AT),
            count(facts["tiles"]),
            count(facts["texts"]),
            count(facts.get("captions_cut", 0)),
        ]
        for teacher, facts in asked.items()
        for way, label in WAYS.items()
    ]
    return Table(
        caption="Recall of captions",
        columns=[
            Column("teacher"),
            Column("from → to"),
            *(Column(f"at {k}", True) for k in AT),
            *(Column(f"by chance at {k}", True) for k in AT),
            Column("tiles", True),
            Column("captions", True, "different ones"),
            Column("cut", True, "captions longer than the text tower takes, which lost their ends"),
        ],
        rows=rows,
        read="How often an own caption of a tile (a tile of a caption) is among so many nearest "
        "ones. Captions that say the same in other words count as wrong.",
        source=tuple(f"vision_language/{teacher}/zero_shot.json" for teacher in asked),
    )


def _tissue(found: Mapping[str, _Found]) -> Table | None:
    shares = {
        t: one.tissue.groupby("class", sort=False)["tiles"].sum()
        for t, one in found.items()
        if len(one.tissue)
    }
    if not shares:
        return None
    classes = list(next(iter(shares.values())).index)
    return Table(
        caption="Tiles by the tissue class whose words are nearest",
        columns=[
            Column("teacher"),
            *(Column(name, True) for name in classes),
            Column("tiles", True),
        ],
        rows=[
            [
                text(t),
                *(text(f"{100 * s[c] / s.sum():.0f} %") for c in classes),
                count(int(s.sum())),
            ]
            for t, s in shares.items()
        ],
        read="Labels without training; each tile's are in `vision_language/<teacher>/tissue/`.",
        source=tuple(f"vision_language/{teacher}/tissue.csv" for teacher in shares),
    )
