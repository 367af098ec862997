"""A task's auxiliary endpoints, in tables of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation, read_evaluation
from pipeline.report.results import ModelInfo, Results
from pipeline.report.tables import metrics
from pipeline.report.tables.cells import Column, Table, count, estimate, text


def tables(
    results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo], models: Sequence[str]
) -> list[Table]:
    """A table for each auxiliary endpoint: one row per model; empty without such.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        models: names, in the order of the page.
    """
    weights = results.config.tasks[opened.task].auxiliary
    if not weights:
        return []
    found = read_table(results.root / "evaluation" / opened.task / "auxiliary.parquet")
    return [
        _table(results, opened, name, weight, found[found["endpoint"] == name], infos, models)
        for name, weight in weights.items()
        if (found["endpoint"] == name).any()
    ]


def _table(
    results: Results,
    opened: Evaluation,
    name: str,
    weight: float,
    found: pd.DataFrame,
    infos: Mapping[str, ModelInfo],
    models: Sequence[str],
) -> Table:
    kept = [m for m in metrics.SHOWN[results.config.tasks[name].type] if m in set(found["metric"])]
    own = read_evaluation(results.root, name, results.config.evaluation.student)
    rows = []
    for model in models:
        mine = {r["metric"]: r for r in found[found["model"] == model].to_dict("records")}
        if not mine:
            continue
        cells = [mine.get(metric, {}) for metric in kept]
        alone = own.row(model, kept[0])
        rows.append(
            [
                text(infos[model].label),
                *(estimate(c.get("value"), c.get("low"), c.get("high")) for c in cells),
                count(cells[0].get("n")),
                estimate(alone.get("value"), alone.get("low"), alone.get("high")),
            ]
        )
    first = metrics.describe(kept[0])
    return Table(
        caption=f"Auxiliary endpoint {name}, learned together with {opened.task}, weight "
        f"{weight:g}",
        columns=[
            Column("model"),
            *(Column(metrics.describe(m).label, True, metrics.describe(m).hint) for m in kept),
            Column("cases", True, "cases with a prediction and a label"),
            Column(f"{first.label}, trained for {name}", True, "the same kind of model, own folds"),
        ],
        rows=rows,
        read=f"What the models of {opened.task} predict of {name}, out of fold. Only "
        f"{opened.task} chose "
        f"the epochs, and no difference is tested here. The last column is the model that "
        f"was trained for {name} itself, on the folds of that task, for orientation.",
        source=(f"evaluation/{opened.task}/auxiliary.csv",),
    )
