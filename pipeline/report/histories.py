"""What training left of each model: its loss curves and the facts of its first fold."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.contracts.model_meta import finished, read_metas
from pipeline.report.figures import charts
from pipeline.report.figures.charts import Drawing, History
from pipeline.report.results import ModelInfo, Results


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model costs besides its teachers.

    Attributes:
        n_parameters: trained or fitted numbers.
        seconds: of training, over all folds and seeds.
        inference: seconds a case, features read and ready.
        teachers: whose features it reads.
    """

    n_parameters: int | None
    seconds: float | None
    inference: float | None
    teachers: tuple[str, ...]


def facts(root: Path, task: str, model: str) -> Facts:
    """From the model's meta.json files; nothing where there are none (`average`).

    Args:
        root: the cohort's results folder.
        task: the task's name.
        model: the model's name.
    """
    metas = read_metas(root / "models" / task / model)
    if not metas:
        return Facts(None, None, None, ())
    return Facts(
        n_parameters=max(meta.n_parameters for meta in metas),
        seconds=sum(meta.seconds for meta in metas),
        inference=statistics.median(meta.inference_seconds_per_case for meta in metas),
        teachers=tuple(metas[0].teachers),
    )


def drawing(
    results: Results, task: str, infos: Mapping[str, ModelInfo], models: Sequence[str]
) -> Drawing | None:
    """The loss curves of all models that learn in epochs, first seed only; None without any.

    Args:
        results: the opened results.
        task: the task's name.
        infos: model → its label and colour.
        models: names, in the order of the page.
    """
    found = []
    for name in models:
        folds = []
        first = results.config.training.seeds[0]
        for path in sorted(
            (results.root / "models" / task / name).glob(f"fold_*/seed_{first}/history.csv")
        ):
            table = pd.read_csv(path)
            meta = finished(path.parent)
            folds.append(
                (
                    table["epoch"].to_list(),
                    table["train_loss"].to_list(),
                    table["val_loss"].to_list(),
                    meta.best_epoch if meta else None,
                )
            )
        # A linear model is solved at once: one point is no curve.
        if any(len(epochs) > 1 for epochs, *_ in folds):
            found.append(History(infos[name].label, infos[name].colour, folds))
    return charts.training(f"{task}-training", found, f"models/{task}/") if found else None
