"""How many labelled cases words are worth: few-shot curves beside zero-shot lines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing


@dataclasses.dataclass(frozen=True)
class Line:
    """One teacher.

    Attributes:
        teacher: its name.
        shots: cases of each class that its probe learned from.
        median, low, high: balanced accuracy over episodes, and its quartiles.
        words: that of the zero-shot prediction; NaN where it has none.
    """

    teacher: str
    shots: Sequence[int]
    median: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    words: float


@style.applied()
def shots(
    name: str, task: str, lines: Sequence[Line], chance: float, source: tuple[str, ...]
) -> Drawing:
    """Balanced accuracy against the number of cases, on a logarithmic axis.

    Args:
        name: of the figure.
        task: the task's name.
        lines: one a teacher.
        chance: what guessing reaches.
        source: files behind it.
    """
    fig, axes = style.figure(5.6, 3.1)
    ax = axes[0, 0]
    for i, line in enumerate(lines):
        colour = style.CYCLE[i % len(style.CYCLE)]
        ax.fill_between(line.shots, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        ax.plot(line.shots, line.median, color=colour, marker="o", markersize=3.5,
                label=f"{line.teacher}, trained")  # fmt: skip
        if math.isfinite(line.words):
            ax.axhline(line.words, color=colour, linestyle="--", linewidth=1.3,
                       label=f"{line.teacher}, words alone")  # fmt: skip
    ax.axhline(chance, color=style.REFERENCE, linewidth=0.9, linestyle=":", label="chance")
    every = sorted({n for line in lines for n in line.shots})
    ax.set_xscale("log", base=2)
    ax.set_xticks(every, [str(n) for n in every])
    ax.minorticks_off()
    ax.set_xlabel("labelled cases of each class")
    ax.set_ylabel("balanced accuracy")
    ax.set_ylim(0, 1.02)
    ax.grid(axis="y")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return Drawing(
        name,
        f"Words against labelled cases, task {task}",
        "A solid line is a linear probe on mean tile features that learned from so many cases of "
        "each class (median and quartiles over draws); a dashed one the prediction from words, "
        "without any. Training overtakes words where they cross.",
        style.svg(fig, name, f"Few-shot curves and zero-shot lines of task {task}"),
        source,
    )
