"""Encoders that learned from the cohort's own tiles: from what, how, and what they found."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from pipeline.config.pretraining import PretrainedTeacher, PretrainingConfig
from pipeline.contracts.made_encoder import CURVE
from pipeline.contracts.pretrained import MAPS, PretrainedFacts, read_pretrained
from pipeline.files.artifacts import read_json
from pipeline.report.figures import pictures, style
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import Results
from pipeline.report.sections import pretrained_methods, probes
from pipeline.report.tables.cells import Cell, Column, Table, count, duration, number, plural, text

STAGE = "pretraining"
MAP_PX = 700
COLUMNS = 3


@dataclasses.dataclass(frozen=True)
class Sign:
    """A sign of a collapse, as it is drawn.

    Attributes:
        column: of `curve.csv`.
        title: above the panel.
        limit: key of `alarms` below which it is alarming; empty: there is none.
    """

    column: str
    title: str
    limit: str = ""


SIGNS = (
    Sign("loss", "loss"),
    Sign("spread", "spread of features", "least_spread"),
    Sign("rank", "effective rank", "least_rank"),
    Sign("found_again", "tiles found again"),
    Sign("information", "information of clusters, nats", "least_information"),
    Sign("bound_distance", "clusters' loss above its least"),
)


@dataclasses.dataclass(frozen=True)
class ClusterMap:
    """A slide beside itself with its clusters.

    Attributes:
        slide: its name.
        picture: both.
        geojson: the same for QuPath, relative to the results folder.
    """

    slide: str
    picture: pictures.Picture
    geojson: str


@dataclasses.dataclass(frozen=True)
class Clusters:
    """The clusters of one encoder over a few slides.

    Attributes:
        teacher: the encoder.
        maps: of slides whose picture can be read.
        shares: of the tiles of each slide, by cluster, with the clusters' colours.
        absent: slides without a picture, as a sentence; empty: none.
    """

    teacher: str
    maps: tuple[ClusterMap, ...]
    shares: Table
    absent: str


@dataclasses.dataclass(frozen=True)
class PretrainingSection:
    """What the page shows; there is none where no encoder was pre-trained.

    Attributes:
        sentences: one for each encoder, with what must be known of its numbers.
        courses: how each learned.
        methods: each by every measure, with its controls; None where nothing was measured.
        gains: each against itself before it was trained; None where tiles were not probed.
        signs: of each encoder, loss and signs of a collapse by step.
        clusters: of each encoder that has some.
    """

    sentences: tuple[str, ...]
    courses: Table
    methods: Table | None
    gains: Table | None
    signs: tuple[Drawing, ...]
    clusters: tuple[Clusters, ...]


def section(results: Results) -> PretrainingSection | None:
    """Build the section; None without pre-trained encoders."""
    config = results.config.section(PretrainingConfig)
    made = [m for m in results.config.made() if m.stage == STAGE and not m.control]
    if config is None or not made:
        return None
    settings = {one.name: config.teachers[one.student] for one in made}
    facts = {name: read_pretrained(results.root, name) for name in settings}
    # Where each fold has an encoder of its own, the first one's course and clusters stand for all.
    drawn = [one.name for one in made if one.fold == 0]
    return PretrainingSection(
        sentences=tuple(sentence(found) for found in facts.values()),
        courses=_courses(facts),
        methods=pretrained_methods.table(results),
        gains=probes.gains(results, STAGE),
        signs=tuple(
            drawing for name in drawn if (drawing := _signs(results.root, name, settings[name]))
        ),
        clusters=tuple(
            _clusters(results.root, name, facts[name].maps) for name in drawn if facts[name].maps
        ),
    )


def sentence(found: PretrainedFacts) -> str:
    """What must be known of an encoder before its numbers.

    Args:
        found: what its training left.
    """
    said = (
        f"{found.teacher}: {found.parameters / 1e6:.1f} M parameters, learned without labels by "
        f"{found.method} from {plural(found.tiles, 'tile')} of {plural(found.slides, 'slide')} of "
        f"{plural(found.cases, 'case')}; {plural(found.held_out, 'slide')} held out, to watch it."
    )
    if found.pool == "all":
        said += (
            " Transductive: it has seen the slides that it is then tested on, though not their "
            "labels, so that new slides may be served worse than every number of it says."
        )
    elif found.pool == "training":
        said += " Of the cohort it has seen the training cases of this fold alone."
    else:
        said += " These slides have no label, and no number below is measured on them."
    if found.collapsed:
        said += (
            f" It collapsed: an alarm ended the training after step {found.steps}, and the last "
            f"sound one, step {found.best_step}, was kept."
        )
    elif found.alarms:
        last = found.alarms[-1]
        said += f" {plural(len(found.alarms), 'alarm')}, the last at step {last.step}: {last.text}."
    return said


def _courses(facts: Mapping[str, PretrainedFacts]) -> Table:
    return Table(
        caption="How encoders learned from the cohort's own tiles",
        columns=[
            Column("encoder"),
            Column("method"),
            Column("steps", True),
            Column("step kept", True, "the last one at which no sign was alarming"),
            Column("tiles shown", True, "as often as they were"),
            Column("time", True, "of training, without validation"),
            Column("waiting, %", True, "of that time, for which no tiles were ready"),
            Column("alarms", True),
        ],
        rows=[
            [
                text(name),
                text(found.method),
                count(found.steps),
                count(found.best_step),
                count(found.images),
                Cell(text(duration(found.seconds)).html, found.seconds),
                number(100 * found.waited / found.seconds if found.seconds else None, 0),
                count(len(found.alarms)),
            ]
            for name, found in facts.items()
        ],
        source=tuple(f"teachers/{name}/facts.json" for name in list(facts)[:3]),
    )


@style.applied()
def _signs(root: Path, name: str, cfg: PretrainedTeacher) -> Drawing | None:
    """A panel for each sign that the method has, its limit as a line with a grey side."""
    path = root / "teachers" / name / CURVE
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    shown = [sign for sign in SIGNS if sign.column in table and table[sign.column].notna().any()]
    if table.empty or not shown:
        return None
    columns = min(len(shown), COLUMNS) if len(shown) != 4 else 4
    rows = -(-len(shown) // columns)
    fig, axes = style.figure(9.4, 0.4 + 1.9 * rows, nrows=rows, ncols=columns, sharex=True)
    panels = list(axes.flat)
    for ax in panels[len(shown) :]:
        ax.set_visible(False)
    for ax, sign in zip(panels, shown, strict=False):
        ax.plot(table["step"], table[sign.column], "o-", color=style.SINGLE, markersize=3)
        ax.set_title(sign.title, fontsize=9)
        ax.grid(axis="y")
        if sign.limit:
            limit = float(getattr(cfg.alarms, sign.limit))
            bottom = min(0.0, float(table[sign.column].min()))
            ax.set_ylim(bottom, 1.15 * max(limit, float(table[sign.column].max())))
            ax.axhspan(bottom, limit, color=style.GRID, linewidth=0)
            ax.axhline(limit, color=style.STUDENT, linewidth=1.2, linestyle="--")
            below = table[table[sign.column] < limit]
            ax.plot(below["step"], below[sign.column], "o", color=style.STUDENT, markersize=4)
    for ax in panels[max(0, len(shown) - columns) : len(shown)]:
        ax.tick_params(labelbottom=True)
        ax.set_xlabel("step")
    last = table.iloc[-1]
    ends = ", ".join(f"{sign.title} {last[sign.column]:.3g}" for sign in shown)
    figure = f"pretraining-{name}"
    explained = "".join(f" {READ[sign.column]}" for sign in shown if sign.column in READ)
    return Drawing(
        figure,
        f"How {name} learned",
        "The loss is of the tiles it learns from, everything else is of held-out tiles. Dashed "
        "lines are limits: a value in the grey below is an alarm." + explained,
        style.svg(fig, figure, f"Loss and signs of a collapse of {name}; at the end {ends}"),
        (f"teachers/{name}/{CURVE}",),
    )


READ: Mapping[str, str] = {
    "spread": "Spread is 0 where all tiles look alike to the encoder, and 1 where their features "
    "point in all directions evenly.",
    "rank": "The effective rank says how many dimensions the features really use.",
    "found_again": "Tiles found again is the share of tiles that are nearest to an augmented view "
    "of themselves.",
    "information": "Information is what a tile says of its cluster: 0 if one cluster has all tiles "
    "or chance decides.",
    "bound_distance": "The clusters' loss cannot fall below −1/(k−1) for the k clusters in use; "
    "near 0 they lie as far apart as they can.",
}


def _clusters(root: Path, name: str, slides: Sequence[str]) -> Clusters:
    folder = Path("teachers") / name / MAPS
    maps, absent = [], []
    shares: dict[str, Counter[str]] = {}
    colours: dict[str, str] = {}
    for slide in slides:
        geojson = folder / f"{slide}.geojson"
        kinds = [
            feature["properties"]["classification"]
            for feature in read_json(root / geojson)["features"]
        ]
        shares[slide] = Counter(kind["name"] for kind in kinds)
        colours |= {kind["name"]: _hex(kind["color"]) for kind in kinds}
        image = pictures.load(root / folder / f"{slide}.png")
        if image is None:
            absent.append(slide)
            continue
        maps.append(ClusterMap(slide, pictures.encode(image, MAP_PX), str(geojson)))
    return Clusters(
        teacher=name,
        maps=tuple(maps),
        shares=_shares(name, shares, colours),
        absent=f"No picture of {', '.join(absent)}." if absent else "",
    )


def _shares(name: str, shares: Mapping[str, Counter[str]], colours: Mapping[str, str]) -> Table:
    """A row for each cluster, the largest first: the legend of the maps."""
    every: Counter[str] = sum(shares.values(), Counter())
    return Table(
        caption=f"Clusters of {name}: share of the tiles of each slide, %",
        columns=[
            Column("cluster"),
            Column("all these slides", True),
            *(Column(slide, True) for slide in shares),
        ],
        rows=[
            [_legend(colours[cluster], cluster), _percent(n, every.total())]
            + [_percent(own[cluster], own.total()) for own in shares.values()]
            for cluster, n in every.most_common()
        ],
        read=f"The colours are those of the maps. {plural(len(every), 'cluster')} of the method's "
        "are in use here; clusters that no tile of these slides is in have no row.",
        source=(f"teachers/{name}/{MAPS}/",),
    )


def _legend(colour: str, cluster: str) -> Cell:
    swatch = Markup('<i class="swatch" style="background:{}"></i>{}').format(colour, cluster)
    return Cell(swatch, int(cluster.rpartition(" ")[2]))


def _percent(part: int, total: int) -> Cell:
    return number(100 * part / total if total else None, 1)


def _hex(colour: Sequence[Any]) -> str:
    red, green, blue = (int(value) for value in colour)
    return f"#{red:02x}{green:02x}{blue:02x}"
