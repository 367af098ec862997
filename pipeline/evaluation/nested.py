"""What nested cross-validation chose: every grid point's inner score, and the outer test.

The inner score of the chosen point is the best of many, and so too good; the outer test part, which
took no part in the choice, says by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pipeline.evaluation.metrics import Bench
from pipeline.evaluation.pooling import Pool, pooled
from pipeline.evaluation.predictions import Predictions

# What the inner folds are judged by in training, by its name here.
INNER_METRIC = {"survival": "c_index", "classification": "auc", "regression": "pearson"}


def nested_table(
    models: Sequence[Predictions], pools: Sequence[Pool], bench: Bench
) -> pd.DataFrame | None:
    """One row per model, seed, fold and grid point; None where nothing was nested.

    Args:
        models: trained models.
        pools: the same models' predictions, ready to be pooled; more may be among them.
        bench: the evaluated cases.

    Returns:
        columns model, seed, fold, point (number), a column a grid key, epoch (the point's best),
        inner (mean over the inner parts), inner_std (over the parts), chosen, judged_by (a metric's
        name, or `loss`), n_inner (cases of the inner parts), n_shared (of these, cases of the outer
        test part), outer (the chosen model on the fold's test part, by the same metric).
    """
    pool_of = {pool.name: pool for pool in pools}
    metric = INNER_METRIC[bench.task.type]
    rows: list[dict[str, Any]] = []
    for model in models:
        for (seed, index), meta in sorted(model.metas.items()):
            nested = meta.nested
            if nested is None:
                continue
            (fold,) = [f for f in bench.folds if f.index == index]
            inside = {case for part in fold.inner for case in part}
            part = pooled(pool_of[model.name], bench.labels.cases, fold=index, seed=seed)
            outer = bench.score(part.there, part.values, part.curves).get(metric)
            for number, stood in enumerate(nested.grid):
                chosen = stood.point == nested.chosen
                rows.append(
                    {
                        "model": model.name,
                        "seed": seed,
                        "fold": index,
                        "point": number,
                        **stood.point,
                        "epoch": stood.epoch,
                        "inner": stood.score,
                        "inner_std": stood.deviation,
                        "chosen": chosen,
                        "judged_by": metric if nested.judged_by == "metric" else "loss",
                        "n_inner": len(inside),
                        "n_shared": len(inside & set(fold.test)),
                        "outer": float(outer[0]) if chosen and outer is not None else None,
                    }
                )
    if not rows:
        return None
    return pd.DataFrame(rows).astype(
        {"epoch": "Int64", "inner": float, "inner_std": float, "outer": float}
    )
