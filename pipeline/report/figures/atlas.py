"""Maps of a slide that somebody asked for: a picture, and squares for QuPath."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg

from pipeline.config.whole import Config
from pipeline.files.artifacts import atomic_path, write_json
from pipeline.report.figures import maps, style
from pipeline.report.figures.geojson import attention_geojson

LONG_SIDE = 1024
DPI = 150
NOTE_WIDTH = 36  # characters beneath a panel


def write(config: Config, root: Path, slide_id: str, rows: pd.DataFrame, out: Path) -> list[str]:
    """Write `<slide>.png`, a map for each teacher, of their mean and of the tiles' influence, and
    `<slide>.geojson`.

    Args:
        config: the whole config.
        root: the results folder.
        slide_id: the slide.
        rows: its attention table.
        out: the folder.

    Returns:
        teachers that are not shown, since they see tiles of another scale.
    """
    tiles, rows, left = maps.one_scale(config, rows)
    tables = maps.weight_tables(list(config.extraction.teachers), rows)
    influence = maps.influence_table(rows)
    canvas = maps.canvas(root, tiles, slide_id, rows, LONG_SIDE)
    shown = {name: tables[name] for name in maps.shown(tables)}
    picture(slide_id, canvas, shown, influence, out)
    write_json(
        out / f"{slide_id}.geojson",
        attention_geojson(
            tables, influence, canvas.tile, maps.geojson_origin(root, tiles, slide_id)
        ),
    )
    return left


@style.applied()
def picture(
    slide_id: str,
    canvas: maps.Canvas,
    tables: dict[str, pd.DataFrame],
    influence: pd.DataFrame | None,
    out: Path,
) -> None:
    """Write `<slide>.png`: the tissue, the weights of each table, and the influence, side by side.

    Args:
        slide_id: the slide.
        canvas: what is painted on.
        tables: name -> columns x, y and weight.
        influence: columns x, y and influence; None: the model says none.
        out: the folder.
    """
    panels = [("tissue", canvas.image, "")]
    for name, table in tables.items():
        painted = maps.paint(canvas, table, maps.by_rank(table["weight"]))
        panels.append((name, painted, maps.said(table["weight"].to_numpy(dtype="float64"))))
    said = ["attention by rank, least (blue) to most (yellow)"] if tables else []
    if influence is not None:
        felt = influence["influence"]
        painted = maps.paint(canvas, influence, maps.by_sign(felt))
        panels.append(("influence", painted, maps.said_influence(felt)))
        said.append("influence on the prediction, lowers (blue) to raises (red)")
    height = 3.0 * min(1.6, max(0.5, canvas.image.height / canvas.image.width))
    fig, axes = style.figure(3.0 * len(panels), height + 0.7, ncols=len(panels))
    fig.set_facecolor("white")
    for ax, (name, image, note) in zip(axes[0], panels, strict=True):
        ax.imshow(image)
        ax.set_title(name)
        ax.set_axis_off()
        ax.text(0, -0.03, textwrap.fill(note, NOTE_WIDTH), transform=ax.transAxes, va="top",
                fontsize=7.5, color=style.MUTED)  # fmt: skip
    fig.suptitle(f"{slide_id}: {'; '.join(said)}", fontsize=9)
    with atomic_path(out / f"{slide_id}.png") as temporary:
        FigureCanvasAgg(fig).print_figure(temporary, dpi=DPI, format="png")


def slides_of(table: pd.DataFrame, wanted: Sequence[str]) -> dict[str, pd.DataFrame]:
    """The attention table of each slide, of the wanted ones where some are named."""
    each = {str(slide): rows for slide, rows in table.groupby("slide_id", sort=True)}
    return {slide: rows for slide, rows in each.items() if not wanted or slide in wanted}
