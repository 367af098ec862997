"""Figures that are not a model's curves: scale of the slides, forest plot, training, timings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from pipeline.report.figures import style
from pipeline.report.tables.cells import interval, p_value, signed, whole


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure of the page.

    Attributes:
        name: unique in the page; also the name of the file under report/.
        title: what it shows.
        read: one sentence on how to read it.
        document: the SVG.
        source: files behind it, relative to the results folder.
    """

    name: str
    title: str
    read: str
    document: str
    source: tuple[str, ...] = ()

    @property
    def inline(self) -> Markup:
        return style.inline(self.document)


@style.applied()
def microns(by_source: Mapping[str, Sequence[float]]) -> Drawing:
    """Distribution of the slides' µm per pixel at level 0, stacked by where the number came from.

    Values are binned on a logarithmic axis, since 0.25 and 0.5 are one objective apart.
    """
    values = np.concatenate([np.asarray(v, float) for v in by_source.values()])
    low, high = math.log2(values.min()) - 0.15, math.log2(values.max()) + 0.15
    edges = 2.0 ** np.linspace(low, high, max(8, min(40, math.ceil((high - low) * 16))) + 1)
    fig, axes = style.figure(5.2, 2.5)
    ax = axes[0, 0]
    names = sorted(by_source)
    ax.hist(
        [by_source[name] for name in names],
        bins=edges,
        stacked=True,
        label=names,
        color=[style.CYCLE[i % len(style.CYCLE)] for i in range(len(names))],
        edgecolor="white",
        linewidth=0.8,
    )
    ax.set_xscale("log", base=2)
    ticks = [t for t in (0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8) if edges[0] <= t <= edges[-1]]
    ax.set_xticks(ticks or [float(np.median(values))])
    ax.set_xticklabels([f"{t:g}" for t in ax.get_xticks()])
    ax.minorticks_off()
    ax.set_xlabel("µm per pixel at level 0")
    ax.set_ylabel("slides")
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="y")
    ax.legend(title="source", title_fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    alt = (
        f"Histogram of microns per pixel of {len(values)} slides, "
        f"from {values.min():.3g} to {values.max():.3g}."
    )
    return Drawing(
        "slides-mpp",
        "Scale of the slides",
        "Each bar counts slides of about that scale; two peaks mean two scan magnifications, which "
        "tiling brings to one.",
        style.svg(fig, "slides-mpp", alt),
        ("tiles/manifest/",),
    )


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model minus another on the `n` cases that both predict; `p` is Holm's."""

    label: str
    colour: str
    value: float
    low: float
    high: float
    p: float
    n: int


@style.applied()
def forest(
    name: str,
    title: str,
    read: str,
    axis: str,
    sides: tuple[str, str],
    rows: Sequence[Difference],
    confidence: float,
    source: str,
) -> Drawing:
    """Paired differences with their intervals, one per row, zero as the line of no effect.

    Args:
        name, title, read, source: as `Drawing` has them.
        axis: what is drawn.
        sides: what a difference left and right of zero means.
        rows: the differences, from above.
        confidence: of the intervals.
    """
    height = 0.95 + 0.34 * len(rows)
    fig, axes = style.figure(8.8, height)
    ax = axes[0, 0]
    y = np.arange(len(rows))[::-1]
    for at, row in zip(y, rows, strict=True):
        ax.plot([row.low, row.high], [at, at], color=row.colour, linewidth=2.2, alpha=0.75)
        ax.plot(row.value, at, "s", color=row.colour, markersize=6.5, clip_on=False)
    ax.axvline(0, color=style.INK, linewidth=0.9)
    finite = [v for r in rows for v in (r.low, r.high, r.value) if math.isfinite(v)] or [0.0]
    reach = 1.1 * max(0.02, *(abs(v) for v in finite))
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-0.7, len(rows) - 0.3)
    ax.set_yticks(y, [row.label for row in rows], color=style.INK)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x")
    ax.set_xlabel(axis)
    for at, side, label in zip((-reach, reach), ("left", "right"), sides, strict=True):
        arrow = f"← {label}" if side == "left" else f"{label} →"
        ax.text(at, len(rows) - 0.32, arrow, color=style.MUTED, fontsize=8, ha=side)
    right = ax.get_yaxis_transform()
    top = len(rows) - 0.32
    interval_heading = f"difference [{100 * confidence:g} % interval]"
    columns = ((1.03, interval_heading), (1.42, "p (Holm)"), (1.57, "cases"))
    for x, heading in columns:
        ax.text(x, top, heading, transform=right, fontsize=8, color=style.MUTED)
    for at, row in zip(y, rows, strict=True):
        shown = f"{signed(row.value)} {interval(row.low, row.high, signs=True)}"
        for (x, _), label in zip(columns, (shown, p_value(row.p), whole(row.n)), strict=True):
            ax.text(x, at, label, transform=right, va="center", fontsize=8.5)
    shown = "; ".join(f"{r.label} {signed(r.value)}" for r in rows)
    alt = f"Forest plot of the {axis}: {shown}"
    return Drawing(
        name,
        title,
        read,
        style.svg(fig, name, alt),
        (source,),
    )


@dataclasses.dataclass(frozen=True)
class History:
    """The training of one model: per fold the loss curves, and the epoch that was kept."""

    label: str
    colour: str
    folds: Sequence[tuple[Sequence[float], Sequence[float], Sequence[float], int | None]]


@style.applied()
def training(name: str, models: Sequence[History], source: str) -> Drawing:
    """Small multiples: training and validation loss per epoch, one panel a model, a line a fold.

    Args:
        name: of the drawing, unique on the page.
        models: losses by epoch and fold of each model.
        source: the files behind it, relative to the results folder.
    """
    columns = min(4, len(models))
    rows = math.ceil(len(models) / columns)
    # Panels of one size in inches: cheaper than a solved layout, and the same in every task.
    width, height = 2.45 * columns, 1.85 * rows
    fig, axes = style.figure(width, height, nrows=rows, ncols=columns)
    fig.set_layout_engine(None)
    fig.subplots_adjust(
        left=0.45 / width, right=1, bottom=0.4 / height, top=1 - 0.25 / height,
        wspace=0.28, hspace=0.45,
    )  # fmt: skip
    for ax, model in zip(axes.flat, models, strict=False):
        for epochs, train, validation, best in model.folds:
            ax.plot(epochs, train, color=style.AXIS, linewidth=0.8)
            ax.plot(epochs, validation, color=model.colour, linewidth=1.1, alpha=0.85)
            if best is not None and best in list(epochs):
                at = list(epochs).index(best)
                ax.plot(best, validation[at], "o", color=model.colour, markersize=3.5)
        values = np.concatenate(
            [np.asarray([*t, *v], float) for _, t, v, _ in model.folds] or [np.zeros(1)]
        )
        values = values[np.isfinite(values)]
        if values.size:
            low, high = float(values.min()), float(np.quantile(values, 0.98))
            room = 0.06 * ((high - low) or 1.0)
            ax.set_ylim(low - room, high + room)
        ax.set_title(model.label, fontsize=8.5)
        ax.locator_params(nbins=4)
        ax.grid(axis="y")
    for ax in list(axes.flat)[len(models) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("loss")
    for column in range(columns):
        lowest = max(r for r in range(rows) if r * columns + column < len(models))
        axes[lowest, column].set_xlabel("epoch")
    return Drawing(
        name,
        "Training of every model that learns in epochs",
        "Grey is the training loss, colour the validation loss, one line per fold, a dot at the "
        "epoch that was kept; colour rising while grey falls is overfitting.",
        style.svg(fig, name, f"Loss curves of {len(models)} models over the epochs."),
        (source,),
    )


@style.applied()
def stages(name: str, rows: Sequence[tuple[str, float, str]]) -> Drawing:
    """Horizontal bars of seconds per rule, longest first, with a text next to each."""
    fig, axes = style.figure(8.0, 0.55 + 0.3 * len(rows))
    ax = axes[0, 0]
    y = np.arange(len(rows))[::-1]
    ax.barh(y, [seconds for _, seconds, _ in rows], height=0.62, color=style.SINGLE)
    longest = max((seconds for _, seconds, _ in rows), default=1.0) or 1.0
    for at, (_, seconds, note) in zip(y, rows, strict=True):
        ax.text(seconds + 0.01 * longest, at, note, va="center", fontsize=8.5, color=style.MUTED)
    ax.set_yticks(y, [rule for rule, _, _ in rows], color=style.INK)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, 1.22 * longest)
    ax.set_xlabel("seconds, summed over jobs")
    ax.grid(axis="x")
    alt = "Bars of the time each rule took: " + "; ".join(f"{r} {s:.0f} s" for r, s, _ in rows)
    return Drawing(
        name,
        "Where the time went",
        "Bars add up the jobs of a rule; jobs run at the same time, so the elapsed time is "
        "shorter.",
        style.svg(fig, name, alt),
        ("benchmarks/",),
    )
