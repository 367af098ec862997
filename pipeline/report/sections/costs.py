"""What each model costs, and how good it is: so that "better" can be weighed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pipeline.report import histories
from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import ModelInfo, Results, students
from pipeline.report.sections import teachers
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import (
    DASH,
    Cell,
    Column,
    Table,
    count,
    duration,
    estimate,
    number,
    text,
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """A model's cost; None where it is not known.

    Attributes:
        teachers: whose features it needs.
        gflop: of those teachers, per slide of the mean number of tiles.
        parameters: trained ones; teachers are frozen.
        seconds: of training, over all folds and seeds.
        inference: seconds a case, from features that are ready.
    """

    teachers: tuple[str, ...]
    gflop: float | None
    parameters: int | None
    seconds: float | None
    inference: float | None


def costs(results: Results, task: str, names: Sequence[str], members: Sequence[str]) -> list[Cost]:
    """The cost of each model.

    Args:
        results: the opened results.
        task: the task's name.
        names: models.
        members: the single-teacher models that `average` is made of, and costs together.
    """
    per_slide = {teacher: gflop_per_slide(results, teacher) for teacher in results.encoders}
    facts = {name: histories.facts(results.root, task, name) for name in {*names, *members}}
    found = []
    for name in names:
        trained = facts[name].n_parameters is not None  # `average` is not
        parts = [facts[name]] if trained else [facts[m] for m in members]
        own = tuple(t for t in results.encoders if any(t in part.teachers for part in parts))
        found.append(
            Cost(
                teachers=own,
                gflop=_sum([per_slide[t] for t in own]),
                parameters=_whole(_sum([part.n_parameters for part in parts])),
                seconds=_sum([part.seconds for part in parts]),
                inference=_sum([part.inference for part in parts]),
            )
        )
    return found


def gflop_per_slide(results: Results, teacher: str) -> float | None:
    """10^9 floating-point operations of a teacher on a slide of the mean number of tiles.

    None for imported features, whose making the pipeline has not seen.
    """
    per_tile = teachers.attributes(results, teacher).get("gflop_per_tile")
    tiles = [
        record.n_tiles
        for record in results.features[teacher].values()
        if record.status == "ok" and record.n_tiles
    ]
    if per_tile is None or not tiles:
        return None
    return float(per_tile) * float(np.mean(tiles))


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum; None where there is nothing to add or a part is not known."""
    known = [v for v in values if v is not None]
    return sum(known) if known and len(known) == len(values) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def table(opened: Evaluation, infos: Mapping[str, ModelInfo], rows: Mapping[str, Cost]) -> Table:
    """One row per model: its primary metric, then what it takes.

    Args:
        opened: the task's evaluation.
        infos: model → its label and colour.
        rows: models in order, and their costs.
    """
    primary = metrics.describe(opened.primary)
    lines = []
    for name, cost in rows.items():
        row = opened.row(name)
        lines.append(
            [
                text(infos[name].label),
                estimate(row["value"], row["low"], row["high"]),
                text(", ".join(cost.teachers) or DASH),
                number(cost.gflop, 1),
                count(cost.parameters),
                Cell(text(duration(cost.seconds)).html, number(cost.seconds).key),
                number(None if cost.inference is None else 1000 * cost.inference, 2),
            ]
        )
    return Table(
        caption=f"{primary.label} and what it costs",
        columns=[
            Column("model"),
            Column(primary.label, True, primary.hint),
            Column("teachers"),
            Column("GFLOP per slide", True, "of its teachers, for the mean number of tiles"),
            Column("parameters", True, "trained or fitted numbers; teachers are frozen"),
            Column("training", True, "seconds over all folds and seeds"),
            Column("ms per case", True, "inference from features that are ready"),
        ],
        rows=lines,
        read="The teachers' forward passes are nearly all of the cost of a new slide. A dash: not "
        "known, as for features that were imported. Seconds are of the machine that trained.",
        source=(f"models/{opened.task}/", "features/<teacher>/<slide>.h5"),
        emphasised=students(infos, rows),
    )


@style.applied()
def drawing(
    opened: Evaluation,
    infos: Mapping[str, ModelInfo],
    rows: Mapping[str, Cost],
    reference: float | None,
) -> Drawing:
    """One line per model: its primary metric on the left, its costs as bars next to it.

    Args:
        opened: the task's evaluation.
        infos: model → its label and colour.
        rows: models in order, and their costs.
        reference: chance, for a dashed line; None where there is none.
    """
    primary = metrics.describe(opened.primary)
    kinds: list[tuple[str, list[float | None], Callable[[float], str]]] = [
        ("teachers' GFLOP per slide", [cost.gflop for cost in rows.values()], _short),
        ("parameters", [cost.parameters for cost in rows.values()], _short),
        ("training", [cost.seconds for cost in rows.values()], duration),
        ("inference, ms per case", [_ms(cost.inference) for cost in rows.values()], _short),
    ]
    kinds = [kind for kind in kinds if any(v is not None for v in kind[1])]
    fig, axes = style.figure(9.4, 0.85 + 0.27 * len(rows), ncols=1 + len(kinds))
    y = np.arange(len(rows))[::-1]
    first = axes[0, 0]
    for at, name in zip(y, rows, strict=True):
        row, colour = opened.row(name), infos[name].colour
        first.plot([row["low"], row["high"]], [at, at], color=colour, linewidth=2.2, alpha=0.6)
        first.plot(row["value"], at, "o", color=colour, markersize=5.5)
    if reference is not None:
        first.axvline(reference, color=style.REFERENCE, linewidth=0.9, linestyle="--")
    first.set_yticks(y, [infos[name].label for name in rows], color=style.INK)
    first.set_xlabel(primary.label)
    first.grid(axis="x")
    colours = [infos[name].colour for name in rows]
    for ax, (label, values, shown) in zip(axes[0, 1:], kinds, strict=True):
        widths = [0.0 if v is None else float(v) for v in values]
        ax.barh(y, widths, height=0.62, color=colours, alpha=0.75)
        longest = max(widths) or 1.0
        for at, width, value in zip(y, widths, values, strict=True):
            said = DASH if value is None else shown(value)
            ax.text(width + 0.03 * longest, at, said, va="center", fontsize=8, color=style.MUTED)
        ax.set_xlim(0, 1.5 * longest)
        ax.set_yticks(y, [""] * len(rows))
        ax.set_xticks([])
        ax.spines["bottom"].set_visible(False)
        ax.set_xlabel(label)
    for ax in axes[0]:
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.tick_params(axis="y", length=0)
    better = "right" if primary.higher else "left"
    alt = f"{primary.label} of {len(rows)} of the models against their cost"
    name = f"{opened.task}-cost"
    return Drawing(
        name,
        f"{primary.label} and what it costs",
        f"A point further {better} is better, a shorter bar is cheaper. A student reads all its "
        "teachers: their forward passes count in full.",
        style.svg(fig, name, alt),
        (f"evaluation/{opened.task}/metrics.csv", f"models/{opened.task}/"),
    )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _short(value: float) -> str:
    """`0.42`, `3.4`, `57`, `512 k`, `4.2 M`."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    if value <= 0:
        return "0"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"
