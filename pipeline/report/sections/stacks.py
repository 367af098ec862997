"""What ensembles, and models with covariates, weigh their parts by, fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation
from pipeline.report.results import ModelInfo, Results
from pipeline.report.tables.cells import (
    Cell,
    Column,
    Table,
    estimate,
    fixed,
    number,
    text,
)

MOST = 40  # rows


def table(
    results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo], models: Sequence[str]
) -> Table | None:
    """A row a model and part; None without such models.

    Args:
        results: the opened results.
        opened: the task's evaluation.
        infos: model → its label and colour.
        models: names, in the order of the page.
    """
    source = f"evaluation/{opened.task}/stacks"
    path = results.root / f"{source}.parquet"
    if not path.is_file():
        return None
    found = read_table(path)
    folds = sorted(found["fold"].unique())
    rows = []
    for model in models:
        mine = found[found["model"] == model]
        for part, output in mine[["part", "output"]].drop_duplicates().itertuples(index=False):
            own = mine[(mine["part"] == part) & (mine["output"] == output)]
            several = own["of"].eq("covariate").all() and found["output"].max() > 0
            label = infos[str(part)].label if str(part) in infos else str(part)
            shown = "share" if own["of"].eq("member").all() else "weight"
            by_fold = own.groupby("fold")[shown].mean().reindex(folds)
            name = f"{label} ({_output(results, opened, int(output))})" if several else label
            rows.append(
                [
                    text(infos[model].label),
                    text(name),
                    text("share" if shown == "share" else "coefficient"),
                    _mean(by_fold),
                    *(number(value, 2) for value in by_fold),
                ]
            )
    if not rows:
        return None
    return Table(
        caption="What ensembles and covariates weigh",
        columns=[
            Column("model"),
            Column("part"),
            Column("is"),
            Column("mean", True, "beneath it the smallest and the largest over folds"),
            *(Column(f"fold {fold}", True) for fold in folds),
        ],
        rows=rows[:MOST],
        more=f"{len(rows) - MOST} more rows in stacks.csv." if len(rows) > MOST else "",
        read="Shares: how much of what all members say comes from one, 0 where it is not used. "
        "Weights are learned from training cases that the members had not seen. Coefficients of "
        "covariates: per standard deviation of a number, and of a category against the average "
        "case, on the scale of the outcome (of survival the logarithm of the hazard ratio); they "
        "are penalised. Parts that change from fold to fold are not to be read one by one.",
        source=(f"{source}.csv",),
    )


def _mean(values: pd.Series) -> Cell:
    known = values.dropna()
    ends = (known.min(), known.max()) if len(known) else (np.nan, np.nan)
    return estimate(known.mean() if len(known) else np.nan, ends[0], ends[1], 2)


def _output(results: Results, opened: Evaluation, number_of: int) -> str:
    """The class, or the target, that an output speaks for."""
    classes = list(opened.summary.classes or ())
    targets = list(getattr(results.config.tasks[opened.task], "targets", ()))
    names = classes or targets
    return names[number_of] if number_of < len(names) else fixed(number_of, 0)
