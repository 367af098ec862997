"""What ensembles, and models with covariates, weigh their parts by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.config.models import STACKS
from pipeline.evaluation.predictions import Predictions


def stack_table(models: Sequence[Predictions]) -> pd.DataFrame | None:
    """A row a model, seed, fold and part; None without such models.

    Args:
        models: trained models.

    Returns:
        columns model, seed, fold, part (a member, or a column of a covariate), of (`member` or
        `covariate`), weight (of the member's prediction in its common unit; of a covariate per
        deviation of a number, against the mean of a category), share (of a member: what of the
        spread of all members' parts it is; NaN where all weigh 0), output (number of the output
        that a covariate speaks for).
    """
    rows: list[dict[str, Any]] = []
    for model in models:
        for (seed, fold), meta in sorted(model.metas.items()):
            if meta.model["kind"] not in STACKS:
                continue
            told, keys = meta.network, {"model": model.name, "seed": seed, "fold": fold}
            reach = np.array(told["weights"]) * np.array(told["spread"])
            share = reach / reach.sum() if reach.sum() > 0 else np.full(len(reach), np.nan)
            rows += [
                {**keys, "part": name, "of": "member", "weight": weight, "share": float(part),
                 "output": 0}
                for name, weight, part in zip(told["members"], told["weights"], share, strict=True)
            ]  # fmt: skip
            rows += [
                {**keys, "part": name, "of": "covariate", "weight": weight, "output": output}
                for name, weights in zip(told["covariates"], told["coefficients"], strict=True)
                for output, weight in enumerate(weights)
            ]
    if not rows:
        return None
    columns = ["model", "seed", "fold", "part", "of", "weight", "share", "output"]
    return pd.DataFrame(rows).reindex(columns=columns)
