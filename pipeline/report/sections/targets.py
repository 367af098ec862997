"""Many regression targets: how their correlations are spread, and the best and worst of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.config.tasks import RegressionTask
from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.figures.task_figures import compared
from pipeline.report.results import ModelInfo, Results, students
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    code,
    count,
    estimate,
    fixed,
    number,
    p_value,
    text,
)

MANY = 10  # fewer targets stand in the table of every metric
ENDS = 5  # targets shown of the best, the middle and the worst
FALSE_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class TargetsSection:
    """The targets of a task.

    Attributes:
        spread: histograms of Pearson's r, over targets and over cases.
        summary: one row per model.
        ends: the student's best, middle and worst targets.
    """

    spread: Drawing
    summary: Table
    ends: Table


def section(
    results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo], models: Sequence[str]
) -> TargetsSection | None:
    """Build the part of a task; None where it has few targets.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        models: names, in the order of the page.
    """
    task = results.config.tasks[opened.task]
    if not isinstance(task, RegressionTask) or len(task.targets) < MANY:
        return None
    folder = results.root / "evaluation" / opened.task
    each, profiles = read_table(folder / "targets.parquet"), read_table(folder / "profiles.parquet")
    shown = compared(infos, models)
    return TargetsSection(
        spread=_spread(opened.task, each, profiles, infos, shown),
        summary=_summary(opened.task, each, profiles, infos, models),
        ends=_ends(opened.task, each, infos, shown),
    )


@style.applied()
def _spread(
    task: str,
    each: pd.DataFrame,
    profiles: pd.DataFrame,
    infos: Mapping[str, ModelInfo],
    shown: Sequence[str],
) -> Drawing:
    """Histograms, one line per model: r of each target over cases, r of each case over targets."""
    fig, axes = style.figure(8.8, 3.0, ncols=2)
    for ax, table, of in ((axes[0, 0], each, "targets"), (axes[0, 1], profiles, "cases")):
        values = table["pearson"].dropna()
        low, high = min(-0.1, values.min()), max(0.1, values.max())
        bins = np.linspace(low, high, max(12, min(40, len(values) // len(shown) // 4)) + 1)
        for model in shown:
            mine = table.loc[table["model"] == model, "pearson"].dropna()
            colour = infos[model].colour
            label = f"{infos[model].label}, median {fixed(mine.median(), 2)}"
            ax.hist(mine, bins=bins, histtype="step", color=colour, linewidth=1.6, label=label)
            ax.axvline(mine.median(), color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
        ax.axvline(0, color=style.INK, linewidth=0.9)
        other = "cases" if of == "targets" else "targets"
        ax.set_xlabel(f"Pearson r over {other}")
        ax.set_ylabel(of)
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), fontsize=8)
        ax.grid(axis="y")
    name = f"{task}-targets"
    return Drawing(
        name,
        "Correlation of every target, and of every case",
        "Left, each target over the held-out cases; right, each case over the targets, scaled by "
        "the training part. Dashed lines are medians. Without any signal the left histogram is "
        "centred slightly below zero, because a fold's training mean and test mean differ in "
        "opposite directions.",
        style.svg(fig, name, f"Histograms of Pearson's r of {each['target'].nunique()} targets."),
        (f"evaluation/{task}/targets.csv", f"evaluation/{task}/profiles.csv"),
    )


def _summary(
    task: str,
    each: pd.DataFrame,
    profiles: pd.DataFrame,
    infos: Mapping[str, ModelInfo],
    models: Sequence[str],
) -> Table:
    rows = []
    for model in models:
        mine = each[each["model"] == model]
        of_case = profiles.loc[profiles["model"] == model, "pearson"]
        quarter = mine["pearson"].quantile([0.25, 0.75])
        found = int((mine["q_value"] < FALSE_SHARE).sum())
        above = int((mine["q_value"].lt(FALSE_SHARE) & mine["pearson"].gt(0)).sum())
        rows.append(
            [
                text(infos[model].label),
                estimate(mine["pearson"].median(), quarter.iloc[0], quarter.iloc[1]),
                number(mine["pearson"].max()),
                number(mine["pearson"].min()),
                Cell(text(f"{above} of {len(mine)}").html, above),
                count(found - above),
                number(of_case.median()),
                count(int(mine["pearson"].isna().sum())),
            ]
        )
    return Table(
        caption="Pearson's r over the targets",
        columns=[
            Column("model"),
            Column("median", True, "beneath it the quartiles over targets"),
            Column("best", True),
            Column("worst", True),
            Column("above zero", True, f"targets with r > 0 at a false discovery rate of "
                   f"{FALSE_SHARE:.0%}"),
            Column("below zero", True, "the same with r < 0: predicted upside down"),
            Column("per case", True, "median over cases of r over targets"),
            Column("undefined", True, "targets that are constant, or whose prediction is"),
        ],
        rows=rows,
        read="Targets are counted after Benjamini and Hochberg's correction over all of them; "
        "correlated targets are found or missed together. Pooling over folds gives targets "
        "without signal an r slightly below zero; the r within each fold has no such bias.",
        source=(f"evaluation/{task}/targets.csv", f"evaluation/{task}/profiles.csv"),
        emphasised=students(infos, models),
    )  # fmt: skip


def _ends(
    task: str, each: pd.DataFrame, infos: Mapping[str, ModelInfo], shown: Sequence[str]
) -> Table:
    by_model = {m: each[each["model"] == m].set_index("target") for m in shown}
    mine = by_model[shown[0]].dropna(subset="pearson").sort_values("pearson", ascending=False)
    middle = (len(mine) - ENDS) // 2
    parts = (
        ("best", mine[:ENDS]),
        ("middle", mine[middle : middle + ENDS]),
        ("worst", mine[-ENDS:]),
    )
    rows = []
    for place, part in parts:
        for target, row in part.iterrows():
            others = [by_model[m]["pearson"].get(target) for m in shown[1:]]
            rows.append(
                [
                    code(target),
                    text(place),
                    estimate(row["pearson"], row["pearson_low"], row["pearson_high"]),
                    Cell(text(p_value(row["q_value"])).html, number(row["q_value"]).key),
                    number(row["spearman"]),
                    number(row["r2"]),
                    number(row["pearson_folds"]),
                    *(number(value) for value in others),
                ]
            )
    return Table(
        caption="The student's best, middle and worst targets",
        columns=[
            Column("target"),
            Column("among"),
            Column("Pearson r", True, "pooled out of fold, with its interval over cases"),
            Column("q", True, "after Benjamini and Hochberg"),
            Column("Spearman ρ", True),
            Column("R²", True),
            Column("r over folds", True, "mean of the folds' own Pearson r"),
            *(Column(f"r, {infos[m].label}", True) for m in shown[1:]),
        ],
        rows=rows,
        more=f"All {len(by_model[shown[0]])} targets of every model are in targets.csv.",
        source=(f"evaluation/{task}/targets.csv",),
    )
