"""What there is to see of a prediction: a heat map, squares for QuPath, and one page a slide."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.config.tiling import TilingConfig
from pipeline.contracts import slide_warnings
from pipeline.contracts.model_card import ModelCard
from pipeline.files.artifacts import write_json, write_text
from pipeline.prediction.ensemble import Statement, Verdict
from pipeline.prediction.model_file import ModelFile
from pipeline.prediction.outcome import Outcome
from pipeline.prediction.weighing import one_scale
from pipeline.report.figures import atlas, maps, pictures
from pipeline.report.figures.geojson import attention_geojson
from pipeline.report.sections.gallery import Gallery, Quantity, gallery
from pipeline.report.stage import HERE as REPORT
from pipeline.report.tables.cells import fixed

HERE = Path(__file__).parent
CANVAS_PX = 720
EFFECTS = {
    "survival": ("raise the risk", "lower the risk", "the risk score"),
    "classification": (
        "speak for the predicted class",
        "speak against it",
        "the log odds of the predicted class",
    ),
    "regression": ("raise the prediction", "lower the prediction", "the first prediction"),
}


@dataclasses.dataclass(frozen=True)
class Map:
    """One picture of the page."""

    label: str
    picture: pictures.Picture
    note: str


def write(
    file: ModelFile,
    outcomes: Sequence[Outcome],
    verdict: Verdict,
    tiles: pd.DataFrame,
    out: Path,
) -> None:
    """Write the picture, the GeoJSON and the page of each slide of a case.

    Args:
        file: the model.
        outcomes: of the case's slides.
        verdict: on the case.
        tiles: as `weighing.tile_table` makes it.
        out: the folder.
    """
    for outcome in outcomes:
        mine = tiles[tiles["slide_id"] == outcome.slide.slide_id]
        if len(mine):
            _slide(file, outcomes, outcome, verdict, mine, out)


def _slide(
    file: ModelFile,
    outcomes: Sequence[Outcome],
    outcome: Outcome,
    verdict: Verdict,
    rows: pd.DataFrame,
    out: Path,
) -> None:
    card, name = file.card, outcome.slide.slide_id
    folder, rows, left = one_scale(card, rows)
    weighed = rows[rows["score"].notna()]
    tables = {"attention": maps.normalised(weighed)} if len(weighed) else {}
    influence = maps.influence_table(rows)
    canvas = maps.canvas(out, folder, name, rows, CANVAS_PX)
    atlas.picture(name, canvas, tables, influence, out)
    squares = attention_geojson(
        tables, influence, canvas.tile, maps.geojson_origin(out, folder, name)
    )
    write_json(out / f"{name}.geojson", squares)
    text = _render(
        card=card,
        file=file.path.name,
        outcome=outcome,
        verdict=verdict,
        maps=_maps(canvas, tables, influence),
        gallery=_gallery(card, outcome, tables, influence, canvas.tile, folder),
        effect=EFFECTS[card.type],
        others=[o for o in outcomes if o is not outcome],
        left=left,
        used_tiles=int(rows.groupby(["x", "y"]).ngroups),
        warnings=slide_warnings.of(outcome.record.facts),
        metrics=[row for row in card.metrics if "[" not in str(row["metric"])],
        attention=bool(tables),
        influence=influence is not None,
        colours=Markup(maps.gradient()),
        signs=Markup(maps.gradient(maps.SIGNED_MAP)),
        bars=[bar(one) for one in verdict.statements if one.share],
        plain=[one for one in verdict.statements if not one.share],
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    write_text(out / f"{name}.html", text)


def _maps(
    canvas: maps.Canvas, tables: Mapping[str, pd.DataFrame], influence: pd.DataFrame | None
) -> list[Map]:
    found = [Map("tissue", pictures.encode(canvas.image, CANVAS_PX), "")]
    for name, table in tables.items():
        painted = maps.paint(canvas, table, maps.by_rank(table["weight"]))
        said = maps.said(table["weight"].to_numpy(dtype="float64"))
        found.append(Map(name, pictures.encode(painted, CANVAS_PX), said))
    if influence is not None:
        felt = influence["influence"]
        painted = maps.paint(canvas, influence, maps.by_sign(felt))
        found.append(
            Map("influence", pictures.encode(painted, CANVAS_PX), maps.said_influence(felt))
        )
    return found


def _gallery(
    card: ModelCard,
    outcome: Outcome,
    tables: Mapping[str, pd.DataFrame],
    influence: pd.DataFrame | None,
    tile: float,
    folder: str,
) -> Gallery:
    """Tiles at both ends of influence, or of attention where there is none."""
    quantities = []
    if influence is not None:
        up, down, _ = EFFECTS[card.type]
        quantities.append(Quantity(influence, "influence", up, down, _range))
    for table in tables.values() if influence is None else ():
        shares = table.assign(share=table["weight"] * len(table))
        quantities.append(Quantity(shares, "share", "most attention", "least attention", _times))
    tiling = next(one.tiling for one in card.encoders if one.tiles == folder)
    scene = TilingConfig.model_validate(tiling).scene
    return gallery(outcome.slide.path, quantities, tile, scene)


def _range(first: float, last: float) -> str:
    return f"{maps.signed(first)} to {maps.signed(last)}"


def _times(first: float, last: float) -> str:
    return f"{first:.2g} to {last:.2g} times an even share"


@dataclasses.dataclass(frozen=True)
class Bar:
    """A share with its interval, in percent of the bar's width."""

    label: str
    said: str
    value: float
    low: float
    width: float


def bar(one: Statement) -> Bar:
    """A share as a bar."""
    low = one.value if one.low is None else one.low
    high = one.value if one.high is None else one.high
    return Bar(one.label, told(one), 100 * one.value, 100 * low, 100 * (high - low))


def told(one: Statement) -> str:
    """A number with its interval as text."""
    if one.share:
        between = (
            ""
            if one.low is None or one.high is None
            else f" ({100 * one.low:.0f} to {100 * one.high:.0f})"
        )
        return f"{100 * one.value:.0f} %{between}"
    between = (
        ""
        if one.low is None or one.high is None
        else f" ({fixed(one.low, 2)} to {fixed(one.high, 2)})"
    )
    return f"{fixed(one.value, 2)}{between}"


def _render(**values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(told=told, fixed=fixed)
    css = Markup((REPORT / "style.css").read_text())
    return environment.get_template("page.html").render(css=css, **values)
