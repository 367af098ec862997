"""What training left of each model: its loss curves and the facts of its first fold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.report import figures
from pipeline.report.figures import Drawing, History
from pipeline.report.results import ModelInfo, Results


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a model costs: trained parameters, and seconds over all folds and seeds."""

    n_parameters: int | None
    seconds: float | None


def facts(root: Path, task: str, model: str) -> Facts:
    """From the model's meta.json files; nothing where there are none (`average`)."""
    metas = [
        _meta(p) for p in sorted((root / "models" / task / model).glob("fold_*/seed_*/meta.json"))
    ]
    seconds = [float(meta["seconds"]) for meta in metas if "seconds" in meta]
    parameters = [int(meta["n_parameters"]) for meta in metas if "n_parameters" in meta]
    return Facts(max(parameters, default=None), sum(seconds) if seconds else None)


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
    return figures.training(f"{task}-training", found, f"models/{task}/") if found else None
