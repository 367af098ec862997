"""Part of section 3: what other stains, focus, compression and scale do to each teacher's view."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pipeline.contracts.robustness import FOLDER, Robustness, read_robustness
from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import Results
from pipeline.report.tables.cells import Column, Table, estimate, number, plural, text

SHIFTS = {
    "stain": ("stain", "share of each stain, more or less"),
    "blur": ("blur", "deviation in pixels"),
    "jpeg": ("JPEG", "quality"),
    "scale": ("scale", "enlarged by this factor"),
}


@dataclasses.dataclass(frozen=True)
class RobustnessSection:
    """What the page shows.

    Attributes:
        figure: likeness of the embeddings, by shift and strength.
        table: of every teacher and shift.
    """

    figure: Drawing
    table: Table


def section(results: Results) -> RobustnessSection | None:
    """Build the part; None where the run has no robustness."""
    found = {name: read_robustness(results.root, name) for name in results.config.robust()}
    if not found:
        return None
    return RobustnessSection(_figure(found), _table(found))


def _table(found: Mapping[str, Robustness]) -> Table:
    rows = []
    for teacher, one in found.items():
        for row in one.rows:
            rows.append(
                [
                    text(teacher),
                    text(f"{SHIFTS[row.shift][0]} {row.strength:g}"),
                    number(row.cosine),
                    number(row.centred),
                    number(100 * row.found, 0),
                    number(one.clean),
                    estimate(row.loss, row.low, row.high),
                ]
            )
    first = next(iter(found.values()))
    lost = max(one.unreadable for one in found.values())
    why = f" No score: {first.reason}." if first.reason else ""
    unread = f" {plural(lost, 'tile')} could not be read." if lost else ""
    return Table(
        caption="The same tiles under other stains, blur, JPEG and scale: how like the clean tile "
        "each encoder sees them, and what its probe loses",
        columns=[
            Column("encoder"),
            Column("shift"),
            Column("cosine", True, "of the embedding to that of the clean tile"),
            Column("centred cosine", True, "after the mean of all clean tiles was taken off both"),
            Column("found again, %", True, "tiles whose own clean tile is nearest of all"),
            Column("score on clean tiles", True, "balanced accuracy of a logistic probe"),
            Column("lost", True, "of that score, by the same probe on the shifted tiles"),
        ],
        rows=rows,
        read=f"{plural(first.n_tiles, 'tile')} of {plural(first.n_cases, 'case')}. The probe "
        "learns from clean tiles of other cases; intervals resample cases. The plain cosine is "
        "high where all tiles look alike to an encoder, which the centred one takes off."
        + why
        + unread,
        source=tuple(f"{FOLDER}/{teacher}.csv" for teacher in found),
    )


@style.applied()
def _figure(found: Mapping[str, Robustness]) -> Drawing:
    kinds = list(dict.fromkeys(row.shift for row in next(iter(found.values())).rows))
    fig, axes = style.figure(2.4 * len(kinds) + 1.6, 2.8, ncols=len(kinds), sharey=True)
    for ax, kind in zip(axes[0], kinds, strict=True):
        strengths = [r.strength for r in next(iter(found.values())).rows if r.shift == kind]
        for number_, (teacher, one) in enumerate(found.items()):
            values = [row.centred for row in one.rows if row.shift == kind]
            colour = style.CYCLE[number_ % len(style.CYCLE)]
            line = "-" if number_ < len(style.CYCLE) else "--"
            ax.plot(
                range(len(values)), values, "o" + line, color=colour, markersize=4, label=teacher
            )
        ax.set_xticks(range(len(strengths)), [f"{value:g}" for value in strengths])
        ax.set_xlim(-0.4, len(strengths) - 0.6)
        ax.set_title(SHIFTS[kind][0], fontsize=9)
        ax.set_xlabel(SHIFTS[kind][1], fontsize=8)
        ax.grid(axis="y")
    axes[0, 0].set_ylabel("centred cosine to the clean tile")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    alt = f"Centred cosine of shifted to clean embeddings of {', '.join(found)}"
    return Drawing(
        "teachers-robustness",
        "What shifts do to embeddings",
        "1: the shifted tile looks to the encoder as the clean one does; 0: no more like it than "
        "any tile. Each shift by its strengths, as in the table.",
        style.svg(fig, "teachers-robustness", alt),
        tuple(f"{FOLDER}/{teacher}.csv" for teacher in found),
    )
