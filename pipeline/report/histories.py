"""What training left of each model: its loss curves and the facts of its first fold."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.report.figures import charts
from pipeline.report.figures.charts import Drawing, History
from pipeline.report.results import ModelInfo, Results


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model costs beside its teachers.

    Attributes:
        n_parameters: trained ones.
        seconds: of training, over all folds and seeds.
        inference: seconds a case, features read and ready.
        teachers: whose features it reads.
    """

    n_parameters: int | None
    seconds: float | None
    inference: float | None
    teachers: tuple[str, ...]


def facts(root: Path, task: str, model: str) -> Facts:
    """From the model's meta.json files; nothing where there are none (`average`)."""
    folder = root / "models" / task / model
    metas = [_meta(p) for p in sorted(folder.glob("fold_*/seed_*/meta.json"))]

    def each(key: str) -> list[float]:
        return [float(meta[key]) for meta in metas if key in meta]

    seconds, inference = each("seconds"), each("inference_seconds_per_case")
    return Facts(
        n_parameters=int(max(each("n_parameters"))) if each("n_parameters") else None,
        seconds=sum(seconds) if seconds else None,
        inference=statistics.median(inference) if inference else None,
        teachers=tuple(metas[0].get("teachers", ())) if metas else (),
    )


def _meta(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def drawing(
    results: Results, task: str, infos: Mapping[str, ModelInfo], models: Sequence[str]
) -> Drawing | None:
    """The loss curves of all models that left a history, first seed only; None without any."""
    found = []
    for name in models:
        folds = []
        first = results.config.training.seeds[0]
        for path in sorted(
            (results.root / "models" / task / name).glob(f"fold_*/seed_{first}/history.csv")
        ):
            table = pd.read_csv(path)
            best = _meta(path.with_name("meta.json")).get("best_epoch")
            folds.append(
                (
                    table["epoch"].to_list(),
                    table["train_loss"].to_list(),
                    table["val_loss"].to_list(),
                    None if best is None else int(best),
                )
            )
        if folds:
            found.append(History(infos[name].label, infos[name].colour, folds))
    return charts.training(f"{task}-training", found, f"models/{task}/") if found else None
