"""A vision-language teacher that learned from captioned tiles: what it finds, before and after."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from pipeline.config.pairs import PairsConfig
from pipeline.contracts.paired import (
    CURVE,
    FACTS,
    LEARNED,
    START,
    WRITTEN,
    PairedFacts,
    read_paired,
)
from pipeline.encoders.caption_recall import AT
from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import Results
from pipeline.report.sections.words import WAYS
from pipeline.report.tables.cells import Column, Table, number, plural, text

SHOWN = 8  # written captions


@dataclasses.dataclass(frozen=True)
class PairsSection:
    """What the page shows; there is none where no teacher learned from captions.

    Attributes:
        teacher: its name.
        sentences: what it learned from.
        recall: of held-out captions and tiles, before and after.
        course: losses and held-out numbers by step.
        written: captions that it wrote, beside the tiles' own; None where it writes none.
    """

    teacher: str
    sentences: tuple[str, ...]
    recall: Table
    course: Drawing | None
    written: Table | None


def section(results: Results) -> PairsSection | None:
    """Build the part; None where no teacher learned from captions."""
    cfg = results.config.section(PairsConfig)
    if cfg is None:
        return None
    facts = read_paired(results.root, cfg.name)
    folder = results.root / "teachers" / cfg.name
    return PairsSection(
        cfg.name, _sentences(facts), _table(facts), _course(folder, facts), _written(folder, facts)
    )


def _sentences(facts: PairedFacts) -> tuple[str, ...]:
    how = "CLIP" if facts.objective == "clip" else "CoCa"
    few = facts.trained_parameters < facts.parameters
    some = f"{facts.trained_parameters:,}" if few else "all"
    texts = plural(facts.texts, "different caption")
    found = [
        f"{facts.teacher} learned from {plural(facts.learned_tiles, 'tile')} of "
        f"{plural(len(facts.learned_cases), 'case')} with {texts} "
        f"(objective: {how}; {some} of {facts.parameters:,} parameters trained; step "
        f"{facts.best_step} of {facts.steps} kept). "
        f"{plural(len(facts.held_out_cases), 'case')} were held out."
    ]
    if facts.captions_without_tiles:
        found.append(f"{plural(facts.captions_without_tiles, 'caption')} are of no tile.")
    if facts.captions_cut:
        found.append(
            f"{plural(facts.captions_cut, 'caption')} are longer than its text tower takes; their "
            "ends were cut off."
        )
    if facts.unreadable:
        found.append(f"{plural(len(facts.unreadable), 'tile')} could not be read.")
    return tuple(found)


def _table(facts: PairedFacts) -> Table:
    models = {"as it started": facts.held_out[START], "after learning": facts.held_out[LEARNED]}
    return Table(
        caption=f"What {facts.teacher} finds of {plural(facts.judged_tiles, 'held-out tile')} and "
        f"their {plural(facts.judged_texts, 'caption')}",
        columns=[
            Column("from → to"),
            Column("model"),
            *(Column(f"recall at {k}", True) for k in AT),
        ],
        rows=[
            [text(label), text(model), *(number(numbers[f"{way}_{k}"]) for k in AT)]
            for way, label in WAYS.items()
            for model, numbers in {**models, "by chance": facts.chance}.items()
        ],
        read="How often an own caption of a tile (a tile of a caption) is among so many nearest "
        "ones. Captions that say the same in other words count as wrong.",
        source=(f"teachers/{facts.teacher}/{FACTS}",),
    )


@style.applied()
def _course(folder: Path, facts: PairedFacts) -> Drawing | None:
    path = folder / CURVE
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    panels = {
        "loss": "loss while learning",
        "score": "score of held-out tiles",
        f"tile_to_text_{AT[1]}": f"tile → text, recall at {AT[1]}",
        "caption_loss": "caption loss per word, held out",
    }
    shown = [column for column in panels if column in table]
    if table.empty:
        return None
    fig, axes = style.figure(2.4 * len(shown), 2.3, ncols=len(shown))
    for ax, column in zip(axes.flat, shown, strict=True):
        ax.plot(table["step"], table[column], "o-", color=style.SINGLE, markersize=3)
        ax.axvline(facts.best_step, color=style.REFERENCE, linestyle=":", linewidth=0.9)
        ax.set_title(panels[column], fontsize=9)
        ax.set_xlabel("step")
        ax.grid(axis="y")
    name = f"pairs-{facts.teacher}"
    return Drawing(
        name,
        f"How {facts.teacher} learned its words",
        "The score is minus the cross entropy of a tile's own caption among all held-out ones, or "
        "where only captions are learned minus the caption loss; the dotted line is the step that "
        "was kept.",
        style.svg(fig, name, f"Loss and held-out numbers of {facts.teacher} by step"),
        (f"teachers/{facts.teacher}/{CURVE}",),
    )


def _written(folder: Path, facts: PairedFacts) -> Table | None:
    path = folder / WRITTEN
    if not path.is_file():
        return None
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    rows = table.head(SHOWN).to_dict("records")
    left = len(table) - len(rows)
    return Table(
        caption=f"Captions that {facts.teacher} wrote for held-out tiles",
        columns=[Column("slide"), Column("its own caption"), Column("written")],
        rows=[[text(row["slide_id"]), text(row["caption"]), text(row["written"])] for row in rows],
        read="The likeliest word after the other.",
        source=(f"teachers/{facts.teacher}/{WRITTEN}",),
        more=f"{left} more are in the file." if left else "",
    )
