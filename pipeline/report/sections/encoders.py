"""Small encoders that learned from all teachers: what they learned, keep and cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.encoder_distillation import TRANSDUCTIVE, Made
from pipeline.contracts.distilled import DistilledFacts, read_distilled
from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import ModelInfo, Results
from pipeline.report.sections import probes
from pipeline.report.sections.costs import Cost, gflop_per_slide
from pipeline.report.sections.timings import read_jobs
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    count,
    duration,
    estimate,
    fixed,
    number,
    plural,
    text,
)

STAGE = "encoder_distillation"
POOLS = {
    "separate": "slides without any label",
    "training": "each fold's training cases",
    "all": "all slides, test cases among them",
}


@dataclasses.dataclass(frozen=True)
class EncodersSection:
    """What the page shows; there is none where no encoder was made.

    Attributes:
        sentence: the first one, with what must be known of the numbers.
        learned: how far each came, by teacher.
        kept: its share of the teachers' score, by task.
        prices: of each encoder, measured.
        curves: of learning.
        gains: each against itself before it was trained; None where tiles were not probed.
    """

    sentence: str
    learned: Table
    kept: Table | None
    prices: Table
    curves: Drawing | None
    gains: Table | None


def section(results: Results) -> EncodersSection | None:
    """Build the section; None without encoders."""
    # Encoders that pre-training made learned from no teacher.
    taught = [m for m in results.config.made() if m.stage == STAGE and not m.control]
    if not taught:
        return None
    facts = {one.name: read_distilled(results.root, one.name) for one in taught}
    return EncodersSection(
        sentence=_sentence(taught, facts),
        learned=_learned(taught, facts),
        kept=_kept(results),
        prices=_prices(results),
        curves=_curves({one.name: _folder(results, one) / "curve.csv" for one in taught}),
        gains=probes.gains(results, STAGE),
    )


def _folder(results: Results, one: Made) -> Path:
    return results.root / "teachers" / one.name


def _sentence(taught: Sequence[Made], facts: Mapping[str, DistilledFacts]) -> str:
    said = []
    for name in dict.fromkeys(one.teacher for one in taught):
        own = [one for one in taught if one.teacher == name]
        found = facts[own[0].name]
        slides = plural(found.slides.learned, "slide")
        many = f"{len(own)} encoders, one for each fold, " if len(own) > 1 else ""
        sentence = (
            f"{name}: {many}{found.parameters / 1e6:.1f} M parameters, learned without labels "
            f"from {slides} ({POOLS[found.pool]})."
        )
        if name.endswith(TRANSDUCTIVE):
            sentence += (
                " Transductive: it has seen the slides that it is then tested on, though not their "
                "labels, so that new slides may be served worse than every number of it says."
            )
        said.append(sentence)
    return " ".join(said)


def _learned(taught: Sequence[Made], facts: Mapping[str, DistilledFacts]) -> Table:
    rows = []
    for one in taught:
        for teacher, found in facts[one.name].agreement.items():
            rows.append(
                [
                    text(one.name),
                    text(teacher),
                    number(found.explained),
                    number(found.cka_before),
                    number(found.cka_student),
                    number(found.overlap_before),
                    number(found.overlap_student),
                    count(facts[one.name].best_step),
                ]
            )
    return Table(
        caption="What encoders learned of their teachers, on slides that were held out",
        columns=[
            Column("encoder"),
            Column("teacher"),
            Column("explained variance", True, "of the standardised features; 1 is all of it"),
            Column("CKA before", True, "centred kernel alignment of the encoder as it started"),
            Column("CKA", True, "of the encoder; 1: the same view but for turns and scale"),
            Column("neighbours before", True, "of a tile's 10 nearest tiles, shared"),
            Column("neighbours", True, "the same for the encoder that has learned"),
            Column("step", True, "of the best validation; 0: it got no better than it started"),
        ],
        rows=rows,
        read="The slides held out decide when to stop, so that these numbers are a little good.",
        source=tuple(f"teachers/{one.name}/facts.json" for one in taught[:3]),
    )


def _kept(results: Results) -> Table | None:
    rows = []
    source = []
    for task in results.tasks:
        path = results.root / "evaluation" / task / "encoders.parquet"
        if not path.is_file():
            continue
        source.append(f"evaluation/{task}/encoders.csv")
        for row in read_table(path).to_dict("records"):
            rows.append(
                [
                    text(task),
                    text(row["model"]),
                    estimate(row["value"], row["low"], row["high"]),
                    text(row["best"]),
                    number(row["best_value"]),
                    _percent(row, "share"),
                    _percent(row, "above_chance"),
                    estimate(row["difference"], row["difference_low"], row["difference_high"]),
                ]
            )
    if not rows:
        return None
    return Table(
        caption="What small encoders keep of their teachers' score",
        columns=[
            Column("task"),
            Column("model"),
            Column("value", True, "the task's first metric"),
            Column("best teacher"),
            Column("its value", True),
            Column("share, %", True, "of the best teacher's value"),
            Column("share above chance, %", True, "of what the best teacher is better than chance"),
            Column("difference", True, "to the best teacher, paired by case"),
        ],
        rows=rows,
        read="Each beside the best of its teachers under the same learner, on the same cases, "
        "folds and resamples. The best teacher was chosen on these cases, which favours it.",
        source=tuple(source),
    )


def _percent(row: Mapping[Any, Any], name: str) -> Cell:
    value, low, high = (100 * float(row[key]) for key in (name, f"{name}_low", f"{name}_high"))
    return estimate(value, low, high, digits=0)


def _prices(results: Results) -> Table:
    jobs: dict[str, list[Any]] = {}
    for job in read_jobs(results.root / "benchmarks" / "extraction"):
        jobs.setdefault(job.rule, []).append(job)
    folders = {one.teacher: one.name for one in reversed(results.config.made())}
    teachers = [t for t in results.encoders if t not in folders]
    price = {teacher: gflop_per_slide(results, teacher) for teacher in results.encoders}
    known = [price[t] for t in teachers]
    whole = sum(v for v in known if v is not None) if None not in known else None
    rows = []
    for teacher in results.encoders:
        own = jobs.get(folders.get(teacher, teacher), [])
        slides = sum(record.status == "ok" for record in results.features[teacher].values())
        per = [sum(getattr(j, key) for j in own) / slides if own and slides else math.nan
               for key in ("seconds", "cpu_seconds")]  # fmt: skip
        gflop = price[teacher]
        cheaper = whole / gflop if whole and gflop and teacher in folders else None
        rows.append(
            [
                text(teacher),
                number(gflop, 1),
                number(cheaper, 1),
                Cell(text(duration(per[0])).html, number(per[0]).key),
                Cell(text(duration(per[1])).html, number(per[1]).key),
                number(max((j.max_rss for j in own), default=math.nan), 0),
            ]
        )
    return Table(
        caption="What encoders cost",
        columns=[
            Column("encoder"),
            Column("GFLOP per slide", True, "for the mean number of tiles"),
            Column("times cheaper", True, "than all teachers together, by GFLOP"),
            Column("time per slide", True, "measured, with the start of the jobs"),
            Column("processor time per slide", True, "measured, of all threads"),
            Column("peak memory, MB", True, "largest resident set of a job"),
        ],
        rows=rows,
        read="Time holds the reading of the slides, which costs every encoder the same, and the "
        "start of each job; jobs that run beside each other slow each other down.",
        source=("features/<teacher>/<slide>.h5", "benchmarks/extraction/"),
    )


@style.applied()
def _curves(files: Mapping[str, Path]) -> Drawing | None:
    tables = {name: pd.read_csv(path) for name, path in files.items() if path.is_file()}
    shown = dict(list(tables.items())[:6])
    if not shown:
        return None
    fig, axes = style.figure(9.4, 2.6, ncols=len(shown))
    for ax, (name, table) in zip(axes[0], shown.items(), strict=True):
        columns = [c for c in table.columns if c.startswith("explained_") and "_at_" not in c]
        for i, column in enumerate(columns):
            colour = style.CYCLE[i % len(style.CYCLE)]
            label = column.removeprefix("explained_")
            ax.plot(table["step"], table[column], "o-", color=colour, markersize=3, label=label)
        ax.axhline(0, color=style.REFERENCE, linewidth=0.9, linestyle="--")
        ax.set_title(name, fontsize=9)
        ax.set_xlabel("step")
        ax.grid(axis="y")
    axes[0, 0].set_ylabel("explained variance")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    alt = f"Explained variance of each teacher while {', '.join(shown)} learned"
    more = f" {len(tables) - len(shown)} more are in teachers/." if len(tables) > len(shown) else ""
    return Drawing(
        "encoders-curves",
        "How encoders learned",
        "On held-out slides; at 0 the student says of every tile what the teacher says on average."
        + more,
        style.svg(fig, "encoders-curves", alt),
        tuple(f"teachers/{name}/curve.csv" for name in shown),
    )


@style.applied()
def frontier(
    opened: Evaluation,
    infos: Mapping[str, ModelInfo],
    rows: Mapping[str, Cost],
    made: Sequence[str],
) -> Drawing | None:
    """Score against the cost of a slide; None where no encoder was made.

    Args:
        opened: the task's evaluation.
        infos: model → its label and colour.
        rows: models and their costs.
        made: encoders that the workflow made.
    """
    priced = {n: c for n, c in rows.items() if c.gflop and opened.row(n)}
    own = [n for n, c in priced.items() if set(c.teachers) & set(made)]
    if not own:
        return None
    primary = metrics.describe(opened.primary)
    fig, axes = style.figure(7.2, 3.4)
    ax = axes[0, 0]
    for name, cost in priced.items():
        row, colour = opened.row(name), infos[name].colour
        ax.plot([cost.gflop] * 2, [row["low"], row["high"]], color=colour, alpha=0.35, linewidth=2)
        marker = "D" if name in own else "o"
        ax.plot(cost.gflop, row["value"], marker, color=colour, markersize=6)
    ax.set_xscale("log")
    costs = np.array([cost.gflop for cost in priced.values()], dtype=float)
    ax.set_xlim(costs.min() / 2, costs.max() * 6)
    # Many models read the same encoders: names of all of them would cover each other.
    better = max if primary.higher else min
    for gflop in sorted({cost.gflop or 0.0 for cost in priced.values()}):
        alike = [name for name, cost in priced.items() if cost.gflop == gflop]
        name = better(alike, key=lambda n: opened.row(n)["value"])
        ax.annotate(
            infos[name].label,
            (gflop, opened.row(name)["value"]),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=style.INK,
        )
    ax.set_xlabel("GFLOP per slide, of all the encoders that a model needs")
    ax.set_ylabel(primary.label)
    ax.grid(axis="y")
    cheapest = min(own, key=lambda n: priced[n].gflop or math.inf)
    alt = f"{primary.label} against GFLOP per slide of {len(priced)} models"
    name = f"{opened.task}-frontier"
    return Drawing(
        name,
        f"{primary.label} against the cost of a slide",
        "Further left is cheaper; the best model of each cost is named. Diamonds are encoders "
        f"made here; {infos[cheapest].label} takes {fixed(priced[cheapest].gflop, 1)} GFLOP. "
        "Lines are intervals over cases.",
        style.svg(fig, name, alt),
        (f"evaluation/{opened.task}/metrics.csv", "features/<teacher>/<slide>.h5"),
    )
