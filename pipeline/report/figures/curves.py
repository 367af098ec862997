"""Figures of one model's predictions: survival groups, ROC, calibration, regression."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.tables.cells import whole


@dataclasses.dataclass(frozen=True)
class SurvivalGroup:
    """A Kaplan–Meier estimate. Times in the task's unit; `survival` starts at 1 at time 0.

    `at_risk` counts the cases at risk at each of the figure's `ticks`.
    """

    label: str
    n: int
    events: int
    time: Sequence[float]
    survival: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    censored: Sequence[float]
    at_risk: Sequence[int]


@dataclasses.dataclass(frozen=True)
class SurvivalPanel:
    """One model's risk groups, lowest risk first, and what a test says of them."""

    label: str
    groups: Sequence[SurvivalGroup]
    ticks: Sequence[float]
    note: str


@style.applied()
def kaplan_meier(name: str, title: str, panels: Sequence[SurvivalPanel], unit: str) -> Drawing:
    """Kaplan–Meier curves with bands, censoring ticks and the table of cases at risk.

    Args:
        name: of the drawing, unique on the page.
        title: above it.
        panels: a panel for each model.
        unit: of the times.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    most = max(len(p.groups) for p in panels)
    width = 5.4 if columns == 1 else 3.7 * columns
    table = 0.13 * (most + 1)
    fig, axes = style.figure(
        width, rows * (2.9 + 0.24 * most),
        nrows=2 * rows, ncols=columns, height_ratios=[1.0, table] * rows,
    )  # fmt: skip
    for i, panel in enumerate(panels):
        top, bottom = (
            axes[2 * (i // columns), i % columns],
            axes[2 * (i // columns) + 1, i % columns],
        )
        _curves(top, panel, unit, first=i % columns == 0)
        _at_risk(bottom, panel)
    for i in range(len(panels), rows * columns):
        axes[2 * (i // columns), i % columns].set_visible(False)
        axes[2 * (i // columns) + 1, i % columns].set_visible(False)
    alt = "Kaplan–Meier curves. " + " ".join(f"{p.label}: {_spoken(p)}." for p in panels)
    return Drawing(
        name,
        title,
        "Each step down is a death; curves that separate early mean that the predicted risk, cut "
        "at the median of the training part, also separates unseen cases. Small ticks are "
        "censored.",
        style.svg(fig, name, alt),
    )


def _spoken(panel: SurvivalPanel) -> str:
    groups = (f"{g.label} risk, {g.n} cases, {g.events} events" for g in panel.groups)
    return "; ".join([*groups, *panel.note.split("\n")])


def _group_colours(n: int) -> Sequence[str]:
    return style.GROUPS.get(n, style.CYCLE)


def _curves(ax: Axes, panel: SurvivalPanel, unit: str, first: bool) -> None:
    lines = []
    for group, colour in zip(panel.groups, _group_colours(len(panel.groups)), strict=False):
        ax.fill_between(group.time, group.low, group.high, step="post", color=colour, alpha=0.12,
                        linewidth=0)  # fmt: skip
        ax.step(group.time, group.survival, where="post", color=colour)
        if len(group.censored):
            at = np.searchsorted(group.time, group.censored, side="right") - 1
            height = np.asarray(group.survival)[np.clip(at, 0, None)]
            ax.plot(group.censored, height, "|", color=colour, markersize=5, markeredgewidth=0.9)
        events = f"{group.events} event{'' if group.events == 1 else 's'}"
        lines.append((f"{group.label} risk: {group.n} cases, {events}", colour))
    ax.set_title(panel.label)
    ax.set_ylim(0, 1.04)
    ax.set_xlim(0, max(panel.ticks) * 1.03)
    ax.set_xticks(panel.ticks, [f"{t:g}" for t in panel.ticks])
    ax.set_xlabel(f"time, {unit}")
    if first:
        ax.set_ylabel("survival")
    ax.grid(axis="y")
    lines += [(part, style.INK) for part in panel.note.split("\n")]
    for i, (label, colour) in enumerate(lines):
        ax.text(1.0, 1.0 - 0.075 * i, label, transform=ax.transAxes, ha="right", va="top",
                fontsize=8, color=style.WRITTEN.get(colour, colour),
                bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6})  # fmt: skip


def _at_risk(ax: Axes, panel: SurvivalPanel) -> None:

    n = len(panel.groups)
    ax.set_xlim(0, max(panel.ticks) * 1.03)
    ax.set_ylim(-0.6, n)
    ax.axis("off")
    ax.text(-0.03 * max(panel.ticks), n - 0.05, "at risk", fontsize=8, color=style.MUTED,
            va="center")  # fmt: skip
    for row, (group, colour) in enumerate(
        zip(panel.groups, _group_colours(n), strict=False), start=1
    ):
        for tick, value in zip(panel.ticks, group.at_risk, strict=True):
            ax.text(tick, n - row, whole(value), fontsize=8.5, ha="center", va="center",
                    color=style.WRITTEN.get(colour, colour))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve in the unit square (or a cloud of points) with its name in the legend."""

    label: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclasses.dataclass(frozen=True)
class Panel:
    """One plot of several lines."""

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str


@style.applied()
def unit_squares(name: str, title: str, read: str, panels: Sequence[Panel], kind: str) -> Drawing:
    """ROC curves or reliability diagrams: square panels from 0 to 1 with the diagonal.

    Args:
        name: of the drawing, unique on the page.
        title: above it.
        read: how to read it.
        panels: a square each.
        kind: `line` joins the points; `points` marks them too and draws their intervals; `steps`
            has no diagonal, and one legend above all panels.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    above = 0.0 if kind == "line" else 0.35  # room for the shared legend
    fig, axes = style.figure(3.3 * columns, 3.35 * rows + above, nrows=rows, ncols=columns)
    for i, (ax, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        if kind != "steps":
            ax.plot([0, 1], [0, 1], color=style.REFERENCE, linewidth=0.9, linestyle=(0, (4, 3)))
        for line in panel.lines:
            dash = (0, (5, 2)) if line.dashed else "-"
            if kind == "points":
                if len(line.low):
                    ax.vlines(
                        line.x, line.low, line.high, color=line.colour, linewidth=1.0, alpha=0.5
                    )
                ax.plot(line.x, line.y, marker="o", markersize=4, linewidth=1.3,
                        color=line.colour, label=line.label, linestyle=dash)  # fmt: skip
            else:
                ax.plot(line.x, line.y, color=line.colour, label=line.label, linestyle=dash)
        ax.set_title(panel.title)
        ax.set_xlim(-0.01, 1.01)
        ax.set_ylim(-0.01, 1.01)
        ax.set_aspect("equal")
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        ax.set_xlabel(panel.x_label)
        if i % columns == 0:
            ax.set_ylabel(panel.y_label)
        ax.grid()
        if kind == "line":
            ax.legend(loc="lower right")
    if kind != "line":
        _shared_legend(fig, panels)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    labels = ", ".join(p.title for p in panels)
    return Drawing(name, title, read, style.svg(fig, name, f"{title}: {labels}."))


def _shared_legend(fig: Figure, panels: Sequence[Panel]) -> None:
    """One legend above all panels, with each label once."""
    handles: dict[str, Artist] = {}
    for ax in fig.axes[: len(panels)]:
        handles |= dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    fig.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4)


@style.applied()
def scatter(name: str, title: str, panels: Sequence[tuple[str, Line, str]]) -> Drawing:
    """Predicted against measured values, one panel per model or target, with the identity line.

    Args:
        name: of the drawing, unique on the page.
        title: above it.
        panels: title, points and a line of text of each.
    """
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig, axes = style.figure(3.3 * columns, 3.35 * rows, nrows=rows, ncols=columns)
    for i, (ax, (label, line, note)) in enumerate(zip(axes.flat, panels, strict=False)):
        both = np.concatenate([np.asarray(line.x, float), np.asarray(line.y, float)])
        room = 0.05 * ((both.max() - both.min()) or 1.0)
        span = (both.min() - room, both.max() + room)
        ax.plot(span, span, color=style.REFERENCE, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.plot(line.x, line.y, "o", color=line.colour, markersize=4.5, alpha=0.6,
                markeredgewidth=0)  # fmt: skip
        ax.set_xlim(span)
        ax.set_ylim(span)
        ax.set_aspect("equal")
        ax.set_title(label)
        ax.set_xlabel("measured")
        if i % columns == 0:
            ax.set_ylabel("predicted")
        ax.grid()
        ax.text(0.03, 0.97, note, transform=ax.transAxes, va="top", fontsize=8.5)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    return Drawing(
        name,
        title,
        "Every point is a case held out from the training; on the dashed line the prediction is "
        "exact, and a flat cloud means a prediction near the mean.",
        style.svg(fig, name, f"{title}: " + "; ".join(f"{p[0]} {p[2]}" for p in panels)),
    )


@style.applied()
def decision(name: str, panels: Sequence[Panel]) -> Drawing:
    """Decision curves: net benefit against the threshold, acting on none as the zero line."""
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    fig, axes = style.figure(3.3 * columns, 2.6 * rows, nrows=rows, ncols=columns)
    for i, (ax, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        ax.axhline(0, color=style.INK, linewidth=0.9)
        for line in panel.lines:
            dash = (0, (4, 3)) if line.dashed else "-"
            ax.plot(line.x, line.y, color=line.colour, label=line.label, linestyle=dash,
                    linewidth=1.1 if line.dashed else 1.6)  # fmt: skip
        top = max((max(line.y) for line in panel.lines), default=1.0)
        ax.set_ylim(-0.35 * top, 1.12 * top)
        ax.set_xlim(0, 1)
        ax.set_title(panel.title)
        ax.set_xlabel(panel.x_label)
        if i % columns == 0:
            ax.set_ylabel(panel.y_label)
        ax.grid(axis="y")
    _shared_legend(fig, panels)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    return Drawing(
        name,
        "Decision curves per class",
        "The higher a line at the threshold at which one would act, the more true cases are acted "
        "on net of false ones; below zero it would be better to do nothing.",
        style.svg(fig, name, "Net benefit over thresholds: " + ", ".join(p.title for p in panels)),
    )


@style.applied()
def confusion(
    name: str, panels: Sequence[tuple[str, Sequence[str], Sequence[Sequence[int]]]]
) -> Drawing:
    """Confusion matrices, rows true and columns predicted, shaded by the share of the row."""
    classes = max(len(p[1]) for p in panels)
    side = 1.5 + 0.42 * classes
    fig, axes = style.figure(side * len(panels) + 0.4, side, ncols=len(panels))
    for i, (ax, (label, names, counts)) in enumerate(zip(axes.flat, panels, strict=True)):
        table = np.asarray(counts, dtype=float)
        shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1.15, edgecolor="white", linewidth=1.5)
        for (row, column), value in np.ndenumerate(table):
            dark = shares[row, column] > 0.6
            ax.text(column + 0.5, row + 0.5, whole(value), ha="center", va="center", fontsize=8.5,
                    color=style.ON_DARK if dark else style.ON_PALE)  # fmt: skip
        ax.invert_yaxis()
        ax.set_aspect("equal")
        at = np.arange(len(names)) + 0.5
        ax.set_xticks(
            at, names, rotation=35 if classes > 2 else 0, ha="right" if classes > 2 else "center"
        )
        ax.set_yticks(at, names if i == 0 else [""] * len(names))
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_title(label, fontsize=9)
        ax.set_xlabel("predicted")
        if i == 0:
            ax.set_ylabel("true")
    alt = "Confusion matrices. " + " ".join(
        f"{label}: {sum(int(c[k]) for k, c in enumerate(counts))} of "
        f"{sum(int(v) for row in counts for v in row)} right."
        for label, _, counts in panels
    )
    return Drawing(
        name,
        "Confusion matrix",
        "Rows are the true class, columns the predicted class; numbers are cases. A dark "
        "diagonal means that most cases of each class are found.",
        style.svg(fig, name, alt),
    )
