"""Section 2: the slides, their scale, and pictures of what was taken from them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.contracts import slide_warnings
from pipeline.contracts.ledger import Record
from pipeline.contracts.slide_facts import SlideFacts, slide_facts
from pipeline.report.figures import charts, pictures
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import Results
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    code,
    count,
    fixed,
    number,
    plural,
    text,
)

PICTURE_PX = 720  # longer side of a picture in the page: legible when enlarged, about 60 kB
FLAGGED = 0.01  # share of a slide's tissue under pen or out of focus that earns it a row
TABLE_ROWS = 200
_ARTEFACTS = (
    "pen on {} % of the picture",
    "{} % of the tissue out of focus",
    "{} % of the tissue folded",
)


@dataclasses.dataclass(frozen=True)
class Card:
    """One slide's picture, or the reason why there is none."""

    slide_id: str
    case_id: str
    status: str
    lines: tuple[str, ...]
    picture: pictures.Picture | None
    alt: str


@dataclasses.dataclass(frozen=True)
class SlidesSection:
    absent: str
    scale: Drawing | None
    sources: Table | None
    quality: Table | None
    cards: tuple[Card, ...]
    shown_of: str


def section(results: Results) -> SlidesSection:
    """Build the section; without tiling it says why it is empty."""
    if not results.tiling:
        return SlidesSection(
            "No slide was tiled: every teacher was imported as features, so there are no pictures.",
            None, None, None, (), "",
        )  # fmt: skip
    records = list(results.tiling.values())
    limit = results.config.report.thumbnails
    case_of = dict(
        zip(results.slides["slide_id"].astype(str), results.slides["case_id"], strict=True)
    )
    cards = tuple(
        _card(results, r, str(case_of.get(r.slide_id, ""))) for r in choose(records, limit)
    )
    return SlidesSection(
        absent="",
        scale=_scale(records),
        sources=_sources(records),
        quality=_quality(records),
        cards=cards,
        shown_of=f"{len(cards)} of {plural(len(records), 'slide')}" if cards else "",
    )


def choose(records: Sequence[Record], limit: int) -> list[Record]:
    """Which slides are pictured: some of each kind, problems first, the same on every run.

    At most a third are slides that failed or are empty, at most a third carry pen or blur, and the
    rest are taken evenly from all others in the order of their ids.
    """
    ordered = sorted(records, key=lambda r: r.slide_id)
    rank = {"failed": 0, "empty": 1, "excluded": 2}
    trouble = sorted((r for r in ordered if r.status != "ok"), key=lambda r: rank[r.status])
    fine = [r for r in ordered if r.status == "ok"]
    flagged = sorted((r for r in fine if _flag(r) >= FLAGGED), key=_flag, reverse=True)
    third = limit // 3
    chosen = [*trouble[:third], *flagged[:third]]
    taken = {r.slide_id for r in chosen}
    others = [r for r in fine if r.slide_id not in taken]
    wanted = min(limit - len(chosen), len(others))
    if wanted > 0:
        at = np.linspace(0, len(others) - 1, wanted).round().astype(int)
        chosen += [others[i] for i in at]
    return chosen


def _flag(record: Record) -> float:
    facts = slide_facts(record)
    return facts.worst_artefact if facts else 0.0


def _card(results: Results, record: Record, case_id: str) -> Card:
    qc = results.root / "tiles" / "qc" / f"{record.slide_id}.jpg"
    image = pictures.load(qc)
    facts = slide_facts(record)
    lines = []
    if record.status != "ok":
        lines.append(record.reason or record.kind)
    if facts is not None:
        if facts.n_tiles:
            lines.append(plural(facts.n_tiles, "tile"))
        lines.append(f"{facts.width} × {facts.height} px at {facts.mpp:.3g} µm/px")
        for share, label in zip(_shares(facts), _ARTEFACTS, strict=True):
            if share is not None and share >= FLAGGED:
                lines.append(label.format(fixed(100 * share, 1)))
    if image is None and record.status == "ok":
        lines.append("no picture found")
    return Card(
        slide_id=record.slide_id,
        case_id=case_id,
        status=record.status,
        lines=tuple(lines),
        picture=pictures.encode(image, PICTURE_PX) if image else None,
        alt=f"Slide {record.slide_id} with its tissue outline and tile grid",
    )


def _scale(records: Iterable[Record]) -> Drawing | None:
    by_source: dict[str, list[float]] = {}
    for record in records:
        facts = slide_facts(record)
        if facts is not None:
            by_source.setdefault(facts.mpp_source, []).append(facts.mpp)
    return charts.microns(by_source) if by_source else None


def _sources(records: Iterable[Record]) -> Table | None:
    counts = Counter(
        (facts.mpp_source, facts.backend)
        for facts in map(slide_facts, records)
        if facts is not None
    )
    if not counts:
        return None
    rows = [[text(s), text(b), count(n)] for (s, b), n in sorted(counts.items())]
    return Table(
        caption="Where the microns per pixel came from",
        columns=[Column("mpp source"), Column("reader"), Column("slides", True)],
        rows=rows,
        read="The scale decides what a tile shows: a wrong one changes the tissue area per tile "
        "by its square.",
        source=("tiles/manifest/",),
    )


def _quality(records: Sequence[Record]) -> Table | None:
    noted = [r for r in records if _flag(r) >= FLAGGED or slide_warnings.of(r.facts)]
    if not noted:
        return None
    noted = sorted(noted, key=lambda r: (-_flag(r), r.slide_id))
    rows = [_quality_row(r) for r in noted[:TABLE_ROWS]]
    left = len(noted) - TABLE_ROWS
    return Table(
        caption="Slides with pen, blur, folds or a warning",
        columns=[
            Column("slide"),
            Column("tiles", True),
            Column("tissue, mm²", True),
            Column("pen, %", True, "of the picture"),
            Column("blur, %", True, "of the tissue"),
            Column("folds, %", True, "of the tissue; a dash where they were not looked for"),
            Column("warnings"),
        ],
        rows=rows,
        read="Pen and out-of-focus areas are masked before tiles are laid; look at slides with a "
        "large share.",
        more=f"{plural(left, 'more slide')} in tiles/manifest/." if left > 0 else "",
        source=("tiles/manifest/", "tiles/qc/"),
    )


def _quality_row(record: Record) -> list[Cell]:
    facts = slide_facts(record)
    return [
        code(record.slide_id),
        count(facts.n_tiles if facts else None),
        number(facts.tissue_mm2 if facts else None, 1),
        *(number(_percent(share), 1) for share in _shares(facts)),
        text("; ".join(w.text for w in slide_warnings.of(record.facts)), css="prose"),
    ]


def _shares(facts: SlideFacts | None) -> tuple[float | None, ...]:
    """Of pen, blur and folds."""
    if facts is None:
        return None, None, None
    return facts.pen_fraction, facts.blur_fraction, facts.fold_fraction


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction
