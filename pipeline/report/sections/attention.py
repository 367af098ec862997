"""Section 5: where the student looked and what it made of it, as maps over the slides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.config.tasks import ClassificationTask, RegressionTask, SurvivalTask
from pipeline.errors import ArtifactError
from pipeline.files.parquet import read_table
from pipeline.report.figures import maps, pictures
from pipeline.report.figures.geojson import attention_geojson
from pipeline.report.results import Results, describe
from pipeline.report.sections.gallery import Gallery, Quantity, gallery
from pipeline.report.tables.cells import fixed

CANVAS_PX = 460
FOLDER = "report/attention"
_ORDERS = {
    "survival": "cases of the highest and of the lowest predicted risk",
    "classification": "cases of the surest and of the least sure predictions",
    "regression": "cases of the highest and of the lowest predictions",
}
_COLUMNS = ("case_id", "slide_id", "teacher", "level", "x", "y", "score", "influence")


@dataclasses.dataclass(frozen=True)
class Effect:
    """How influence is spoken of.

    Attributes:
        up, down: what a tile of positive, of negative influence does.
        on: what changes.
    """

    up: str
    down: str
    on: str


_EFFECTS = {
    "survival": Effect("raise the risk", "lower the risk", "the predicted risk"),
    "classification": Effect(
        "speak for the predicted class", "speak against it", "the log odds of the predicted class"
    ),
    "regression": Effect("raise the prediction", "lower the prediction", "the prediction"),
}


@dataclasses.dataclass(frozen=True)
class Map:
    """One picture: the tissue itself, one teacher's attention, the fused one, or the influence."""

    label: str
    picture: pictures.Picture
    note: str
    alt: str


@dataclasses.dataclass(frozen=True)
class CaseMaps:
    """One case on the page.

    Attributes:
        gallery: the tiles of most and of least attention, of all teachers and levels together, and
            those of the largest influence either way.
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
    model: str = ""
    task: str = ""
    order: str = ""
    effect: Effect | None = None
    cases: tuple[CaseMaps, ...] = ()
    colours: str = ""
    signs: str = ""
    source: tuple[str, ...] = ()


def section(results: Results) -> AttentionSection:
    """Maps of a few cases for the first task whose student left attention; else the reason.
    `effect` is None where the model says no influence.

    Raises:
        ArtifactError: an attention table lacks a column or does not open.
    """
    wanted = results.config.report.attention_cases
    student = results.config.evaluation.student
    if wanted == 0:
        return AttentionSection("No maps were asked for (report.attention_cases is 0).")
    for task in results.tasks:
        folder = results.root / "models" / task / student
        tables = [
            (path, _read(path)) for path in sorted(folder.glob("fold_*/seed_*/attention.parquet"))
        ]
        tables = [(path, table) for path, table in tables if len(table)]
        if tables:
            return _maps(results, task, student, tables, wanted)
    return AttentionSection(
        f"The student `{student}` left no attention with coordinates: either its features carry "
        f"none (as imported ones often do), or training.attention_cases_per_fold is 0."
    )


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
    kind = results.config.tasks[task].type
    shown = spread(order, wanted)
    felt = not any(by_case[case]["influence"].isna().any() for case in shown)
    effect = _EFFECTS[kind] if felt else None
    cases = [_case(results, task, case, by_case[case], titles[case], effect) for case in shown]
    return AttentionSection(
        absent="",
        model=describe(results.config, student).label,
        task=task,
        order=_ORDERS[kind],
        effect=effect,
        cases=tuple(cases),
        colours=maps.gradient(),
        signs=maps.gradient(maps.SIGNED_MAP),
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


def _case(
    results: Results,
    task: str,
    case_id: str,
    rows: pd.DataFrame,
    title: str,
    effect: Effect | None,
) -> CaseMaps:
    """Maps of the case's slide that has the most tiles."""
    counts = rows.groupby("slide_id")[["x", "y"]].apply(lambda g: len(g.drop_duplicates()))
    slide_id = str(counts.sort_index().idxmax())
    mine = rows[rows["slide_id"].astype(str) == slide_id]
    tiles, mine, left = maps.one_scale(results.config, mine)
    canvas = maps.canvas(results.root, tiles, slide_id, mine, CANVAS_PX)
    drawn = [
        Map(
            "tissue",
            pictures.encode(canvas.image, CANVAS_PX),
            "",
            f"Thumbnail of slide {slide_id}",
        )
    ]
    tables = maps.weight_tables(results.teachers, mine)
    for name in maps.shown(tables):
        drawn.append(
            Map(
                label=name,
                picture=pictures.encode(
                    maps.paint(canvas, tables[name], maps.by_rank(tables[name]["weight"])),
                    CANVAS_PX,
                ),
                note=maps.said(tables[name]["weight"].to_numpy(dtype="float64")),
                alt=f"Attention of {name} over slide {slide_id}",
            )
        )
    weighed = tables[maps.FUSED]
    quantities = [
        Quantity(
            weighed.assign(share=weighed["weight"] * len(weighed)),
            "share",
            "most attention",
            "least attention",
            lambda first, last: f"{first:.2g} to {last:.2g} times an even share",
        )
    ]
    influence = maps.influence_table(mine) if effect is not None else None
    if influence is not None and effect is not None:
        felt = influence["influence"]
        drawn.append(
            Map(
                label="influence",
                picture=pictures.encode(
                    maps.paint(canvas, influence, maps.by_sign(felt)), CANVAS_PX
                ),
                note=maps.said_influence(felt),
                alt=f"Influence of the tiles of slide {slide_id} on {effect.on}",
            )
        )
        quantities.append(Quantity(influence, "influence", effect.up, effect.down, _range))
    others = len(counts) - 1
    suffix = (
        f"; {others} more slide{'s' if others > 1 else ''} of this case not shown" if others else ""
    )
    suffix += f"; not shown, with tiles of another scale: {', '.join(left)}" if left else ""
    return CaseMaps(
        case_id=case_id,
        slide_id=slide_id,
        title=title + suffix,
        maps=tuple(drawn),
        gallery=gallery(
            _slide_path(results, slide_id), quantities, canvas.tile, results.config.tiling.scene
        ),
        geojson=f"{FOLDER}/{task}-{slide_id}.geojson",
        squares=attention_geojson(
            tables, influence, canvas.tile, maps.geojson_origin(results.root, tiles, slide_id)
        ),
    )


def _range(first: float, last: float) -> str:
    return f"{maps.signed(first)} to {maps.signed(last)}"


def _slide_path(results: Results, slide_id: str) -> Path | None:
    """The slide's file as the slide table gives it, None where it gives none."""
    slides = results.slides
    found = slides.loc[slides["slide_id"].astype(str) == slide_id, "path"]
    return Path(str(found.iloc[0])) if len(found) and found.iloc[0] else None
