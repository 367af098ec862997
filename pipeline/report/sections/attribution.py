"""What the student's lead over a single teacher is made of, as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.files.parquet import read_table
from pipeline.report.evaluated import Evaluation
from pipeline.report.figures import charts, style
from pipeline.report.figures.charts import Difference, Drawing
from pipeline.report.results import ModelInfo, Results
from pipeline.report.tables import metrics

# By the column `part`, in the order of the figure.
PARTS = {
    "whole": "student − plain model",
    "learner": "what the learner adds",
    "teachers": "what several teachers add",
    "distillation": "what distillation adds",
    "simple": "student − best simple model",
}


def drawing(results: Results, opened: Evaluation, infos: Mapping[str, ModelInfo]) -> Drawing | None:
    """The parts with their intervals; None where the student has no controls.

    Args:
        results: the run.
        opened: the task's evaluation.
        infos: how models are called and coloured.
    """
    source = f"evaluation/{opened.task}/attribution"
    path = results.root / f"{source}.parquet"
    if not path.is_file():
        return None
    found = {str(row["part"]): row for row in read_table(path).to_dict("records")}
    rows = [
        Difference(
            label=said,
            colour=infos[opened.student].colour if part == "whole" else style.INK,
            value=float(row["difference"]),
            low=float(row["low"]),
            high=float(row["high"]),
            p=float(row["p_holm"]),
            n=int(row["n"]),
        )
        for part, said in PARTS.items()
        if (row := found.get(part)) is not None
    ]
    metric = metrics.describe(opened.primary)
    teacher = next(iter(found.values()))["teacher"]
    sides = ("less", "more") if metric.higher else ("more", "less")
    return charts.forest(
        name=f"{opened.task}-attribution",
        title="What the student's lead over a single teacher is made of",
        read="The student's own learner is also trained on each teacher alone; validation chose "
        f"{teacher}.{_names(found, infos)} The learner adds what that model has more than the "
        "plain one, several teachers what the student has more than that model; both add up to "
        "the first line where all predict the same cases. A line that crosses zero: this cohort "
        "does not show it.",
        axis=f"difference in {metric.label}",
        sides=sides,
        rows=rows,
        confidence=results.config.evaluation.confidence,
        source=f"{source}.csv",
    )


def _names(found: Mapping[str, Mapping[Any, Any]], infos: Mapping[str, ModelInfo]) -> str:
    """Which models the plain and the simple one are, by what validation says of them."""
    said = {"whole": "The plain model of it is {}.", "simple": "The best simple model is {}."}
    return "".join(
        f" {text.format(infos[found[part]['other']].label)}"
        for part, text in said.items()
        if part in found
    )
