"""What nested cross-validation chose, how flat the choice was, and what the test said of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import style
from pipeline.report.figures.charts import Drawing
from pipeline.report.results import ModelInfo, Results
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import Column, Table, count, fixed, number, text

SIDEWAYS = 5  # more grid points than this have their labels upright


@dataclasses.dataclass(frozen=True)
class InnerSection:
    """The choice of each model.

    Attributes:
        summary: one row per model.
        drawing: every grid point's inner score, a panel a model.
        choices: one row per model, seed and fold.
    """

    summary: Table
    drawing: Drawing
    choices: Table


def section(
    results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo], models: Sequence[str]
) -> InnerSection | None:
    """Build the part of a task; None where the run is not nested.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        models: names, in the order of the page.
    """
    nested = results.config.training.nested
    if nested is None:
        return None
    source = f"evaluation/{opened.task}/nested.csv"
    found = read_table(results.root / "evaluation" / opened.task / "nested.parquet")
    by_model = {name: found[found["model"] == name] for name in models if name in set(found.model)}
    keys = list(nested.grid)
    judged = str(found["judged_by"].iloc[0])
    return InnerSection(
        summary=_summary(by_model, infos, keys, judged, source),
        drawing=_drawing(opened.task, by_model, infos, keys, judged, source),
        choices=_choices(by_model, infos, keys, source),
    )


def _summary(
    by_model: Mapping[str, pd.DataFrame],
    infos: Mapping[str, ModelInfo],
    keys: Sequence[str],
    judged: str,
    source: str,
) -> Table:
    rows = []
    sign = 1 if _higher(judged) else -1
    for name, table in by_model.items():
        chosen = table[table["chosen"]]
        ranked = [
            (sign * fold["inner"]).dropna().sort_values(ascending=False).to_list()
            for _, fold in table.groupby(["seed", "fold"])
        ]
        often = chosen["point"].mode().iloc[0]
        point = chosen[chosen["point"] == often].iloc[0]
        rows.append(
            [
                text(infos[name].label),
                text(_point(point, keys)),
                text(f"{(chosen['point'] == often).sum()} of {len(chosen)}"),
                text(_range(chosen["epoch"])),
                number(chosen["inner"].mean()),
                number(_mean([r[0] - r[1] for r in ranked if len(r) > 1])),
                number(_mean([r[0] - r[-1] for r in ranked if len(r) > 1])),
                number(chosen["inner_std"].mean()),
                number(chosen["outer"].mean()),
                text(f"{chosen['n_shared'].sum()} of {chosen['n_inner'].sum()}"),
            ]
        )
    label = _label(judged)
    return Table(
        caption="What the inner folds chose",
        columns=[
            Column("model"),
            Column("chosen most often", hint=", ".join(keys)),
            Column("in folds", True, "over all folds and seeds"),
            Column("epochs", True, "for which the final models were trained"),
            Column(f"inner {label}", True, "of the chosen points, mean over folds"),
            Column("lead over second", True, "best point minus the second, mean over folds"),
            Column("lead over worst", True, "best point minus the worst, mean over folds"),
            Column("over parts", True, "standard deviation over the inner parts"),
            Column("outer test", True, "the final models on the test parts, mean over folds"),
            Column(
                "shared",
                True,
                "cases of the inner parts that are also in the test part of their fold",
            ),
        ],
        rows=rows,
        read="Where the lead of the best point over the second is much smaller than the "
        "differences between inner parts, the choice hardly matters. The inner score is the "
        "best of many and therefore too good; the outer test cases took no part in the choice "
        "(the last column counts cases that inner parts and test have "
        "in common).",
        source=(source,),
    )


def _choices(
    by_model: Mapping[str, pd.DataFrame],
    infos: Mapping[str, ModelInfo],
    keys: Sequence[str],
    source: str,
) -> Table:
    rows = []
    for name, table in by_model.items():
        chosen = table[table["chosen"]]
        for row in chosen.to_dict("records"):
            rows.append(
                [
                    text(infos[name].label),
                    count(row["fold"]),
                    count(row["seed"]),
                    *(text(_value(row[key])) for key in keys),
                    count(row["epoch"]),
                    text(f"{fixed(row['inner'])} ± {fixed(row['inner_std'])}"),
                    number(row["outer"]),
                    count(row["n_inner"]),
                ]
            )
    return Table(
        caption="The choice of every model and fold",
        columns=[
            Column("model"),
            Column("fold", True),
            Column("seed", True),
            *(Column(key, True) for key in keys),
            Column("epochs", True),
            Column("inner score", True, "mean ± standard deviation over the inner parts"),
            Column("outer test", True),
            Column("inner cases", True),
        ],
        rows=rows,
        source=(source, "models/<task>/<model>/fold_<k>/seed_<s>/inner.csv"),
    )


@style.applied()
def _drawing(
    task: str,
    by_model: Mapping[str, pd.DataFrame],
    infos: Mapping[str, ModelInfo],
    keys: Sequence[str],
    judged: str,
    source: str,
) -> Drawing:
    """A panel a model: the inner score of each grid point, thin lines for folds, thick their mean.

    Panels share the axis, so that flat looks flat.
    """
    points = next(iter(by_model.values())).drop_duplicates("point").sort_values("point")
    labels = [_point(row, keys, "\n") for _, row in points.iterrows()]
    upright = len(labels) > SIDEWAYS
    columns = min(4, len(by_model))
    rows = math.ceil(len(by_model) / columns)
    foot = 0.2 + (0.075 * max(map(len, labels)) if upright else 0.14 * len(keys))
    fig, axes = style.figure(
        2.5 * columns, rows * 1.7 + foot, nrows=rows, ncols=columns, sharex=True, sharey=True
    )
    for ax, (name, table) in zip(axes.flat, by_model.items(), strict=False):
        colour = infos[name].colour
        for _, fold in table.groupby(["seed", "fold"]):
            ax.plot(fold["point"], fold["inner"], color="#9aa5b1", linewidth=0.8)
        mean = table.groupby("point")["inner"].mean()
        ax.plot(mean.index, mean, color=colour)
        chosen = table[table["chosen"]]
        ax.plot(chosen["point"], chosen["inner"], "o", color=colour, markersize=4.5)
        ax.set_title(infos[name].label, fontsize=8.5)
        ax.grid(axis="y")
    said = [label.replace("\n", ", ") for label in labels] if upright else labels
    for at, ax in enumerate(axes.flat):
        if at >= len(by_model):
            ax.set_visible(False)
            continue
        ax.set_xticks(range(len(said)), said, rotation=90 if upright else 0)
        ax.tick_params(labelbottom=at + columns >= len(by_model))
        ax.tick_params(axis="x", labelsize=7.5)
    for ax in axes[:, 0]:
        ax.set_ylabel(f"inner {_label(judged)}")
    name = f"{task}-inner"
    alt = f"Inner scores of {len(labels)} grid points for {len(by_model)} models."
    return Drawing(
        name,
        f"Inner scores over the grid ({', '.join(keys)})",
        "Grey lines are folds, the coloured one their mean, dots what each fold chose. A flat "
        "line means that the choice hardly matters; widely scattered dots mean that it is a "
        "matter of chance.",
        style.svg(fig, name, alt),
        (source,),
    )


def _point(row: pd.Series, keys: Sequence[str], between: str = ", ") -> str:
    return between.join(_value(row[key]) for key in keys)


def _value(value: Any) -> str:
    """A setting as it is written in the config."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low} to {high}"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _higher(judged: str) -> bool:
    return judged != "loss" and metrics.describe(judged).higher


def _label(judged: str) -> str:
    return "loss" if judged == "loss" else metrics.describe(judged).label
