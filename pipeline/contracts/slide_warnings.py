"""Warnings about slides, most of which are used all the same: a named kind and a sentence each.

A stage puts them into the facts of a slide's record with `as_facts`. The mapping stage makes a row
of the ledger of each (the slide's status, the warning's kind); logs, terminal and report show them
by kind. A new kind is a line in `KINDS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from pipeline.contracts.ledger import Record

FACT = "warnings"
SHOWN = 3

# What a kind of warning means for the results, and what to do about it.
KINDS = {
    "scale_passed_over": "A scale that the file states cannot be right, so another was used; "
    "compare the slide's size in mm with the glass.",
    "scale_sources_disagree": "Two sources state different scales; the first named was used. Give "
    "the right one in the sheet's column `mpp`.",
    "scale_unusual": "The scale looks like a mistake of its unit, or is twice or half of what the "
    "cohort's other slides have. Compare the slide's size in mm with the glass, and give the right "
    "scale in the sheet's column `mpp`.",
    "scale_assumed": "The file states no scale that can be right; tiling.default_mpp was used.",
    "other_scene_passed_over": "The file holds several images like the one that was used. Choose "
    "another with tiling.scene, or split the file into one file per scene.",
    "colours_unusual": "The colours are not those of H&E on clear glass: another stain, exchanged "
    "channels, a colour space that the file does not name, or a cast. Look at the slide's picture "
    "in tiles/qc. tiling.unusual_colours: refuse leaves such slides out, accept is silent.",
    "tiles_left_out": "Some of the given tiles lie outside the slide, and were left out.",
    "focus_not_judged": "The scan is too coarse to find what is out of focus.",
    "out_of_focus": "Much of the tissue is out of focus, and was left out; scan the slide again.",
    "pieces_left_out": "Much of the tissue lies in pieces below tiling.tissue.min_area_um2 and was "
    "left out; lower that key if they are tissue.",
    "kept_artefacts": "Tiles that a limit of tiling would leave out are used, because the sheet's "
    "mask or coordinates are trusted; take them out there.",
    "features_unusual": "The numbers of an imported feature file are unlike those of the "
    "teacher's other files, as if another encoder or setting had made it; a model can learn that "
    "mark instead of the tissue. Compare how the files were made; those of two encoders are two "
    "teachers.",
    "zero_rows": "Some tiles of an imported feature file have nothing but zeros for features, as "
    "after an extraction that failed; extract these slides again.",
    "pen": "Pen covers much of the slide, and was left out with what lies under it.",
}


@dataclasses.dataclass(frozen=True)
class SlideWarning:
    """A warning about one slide.

    Attributes:
        kind: one of `KINDS`.
        text: what was found on this slide, with its values, in one line.
    """

    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind}: no kind of slide_warnings.KINDS")


def as_facts(warnings: Iterable[SlideWarning]) -> list[dict[str, str]]:
    """The warnings as a record's facts hold them, under the key `FACT`."""
    return [dataclasses.asdict(warning) for warning in warnings]


def added(record: Record, warning: SlideWarning) -> Record:
    """The record with one more warning, as a stage gives it that sees the whole cohort."""
    rows = [*record.facts.get(FACT, []), *as_facts([warning])]
    return dataclasses.replace(record, facts={**record.facts, FACT: rows})


def of(facts: dict[str, Any]) -> list[SlideWarning]:
    """The warnings in a record's facts."""
    return [SlideWarning(**row) for row in facts.get(FACT, [])]


def pairs(records: Iterable[Record]) -> list[tuple[str, SlideWarning]]:
    """(slide id, warning) of all records, in their order."""
    return [(record.slide_id, warning) for record in records for warning in of(record.facts)]


def in_ledger(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, SlideWarning]]:
    """The warnings among a ledger's (slide id, kind, reason)."""
    return [(slide, SlideWarning(kind, text)) for slide, kind, text in rows if kind in KINDS]


def by_kind(
    warnings: Iterable[tuple[str, SlideWarning]],
) -> dict[str, list[tuple[str, SlideWarning]]]:
    """The warnings in groups, the kind of most slides first."""
    groups: dict[str, list[tuple[str, SlideWarning]]] = {}
    for slide, warning in warnings:
        groups.setdefault(warning.kind, []).append((slide, warning))
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def summary(warnings: Iterable[tuple[str, SlideWarning]], where: str = "ledger.csv") -> list[str]:
    """What a terminal or a log says of the warnings; no line when there are none.

    Args:
        warnings: (slide id, warning).
        where: the file that lists all of them.
    """
    warnings = list(warnings)
    slides = {slide for slide, _ in warnings}
    if not slides:
        return []
    lines = [f"warnings about {_slides(len(slides))}:"]
    for kind, group in by_kind(warnings).items():
        lines.append(f"  {kind} ({_slides(len({slide for slide, _ in group}))}). {KINDS[kind]}")
        lines += [f"    - {slide}: {warning.text}" for slide, warning in group[:SHOWN]]
        if len(group) > SHOWN:
            lines.append(f"    - and {len(group) - SHOWN} more: {where}")
    return lines


def _slides(count: int) -> str:
    return f"{count} slide{'' if count == 1 else 's'}"
