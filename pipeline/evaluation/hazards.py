"""Predicted survival curves on a common grid of times, from what each kind of model predicts.

A discrete-time model says how likely a case outlives each bin edge. A Cox model gives a log hazard
ratio alone; its baseline hazard is Breslow's estimate on the training part of the same fold.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from pipeline.config.tasks import SurvivalTask
from pipeline.contracts.labels import Labels
from pipeline.evaluation.predictions import Predictions

_LARGEST = 50.0


def last_edge(models: list[Predictions]) -> float | None:
    """The time up to which every discrete-time model's curves speak; None without such models."""
    ends = [edges[-1] for model in models for edges in model.edges.values() if edges]
    return min(ends) if ends and any(model.survival for model in models) else None


def curve_table(
    model: Predictions, task: SurvivalTask, labels: Labels, grid: np.ndarray
) -> pd.DataFrame | None:
    """Survival at the grid for the rows of a model's table.

    Args:
        model: its predictions; a head with Cox's loss says that the risk is a log hazard ratio.
        task: the task, whose loss counts where a model says nothing of its own.
        labels: labels of all cases.
        grid: (t,), ascending, in the task's unit.

    Returns:
        columns `s0 … s<t-1>`, indexed as the model's table, NaN in the training part; None where
        the model's predictions give no curve.
    """
    fits = list(zip(model.table["seed"], model.table["fold"], strict=True))
    discrete = bool(model.survival) and all(model.edges.get(fit) for fit in set(fits))
    heads = {m.head.get("kind", task.loss) for m in model.metas.values()} or {task.loss}
    if not discrete and heads != {"cox"}:
        return None
    assert labels.time is not None and labels.event is not None
    row_of = {case: i for i, case in enumerate(labels.cases)}
    found = np.full((len(model.table), len(grid)), np.nan)
    split = model.table["split"].to_numpy()
    rows = np.array([row_of[case] for case in model.table["case_id"]], dtype=np.int64)
    risk = model.table["risk"].to_numpy()
    for seed, fold in sorted(set(fits)):
        at = np.flatnonzero([fit == (seed, fold) for fit in fits])
        unseen = at[split[at] != "train"]
        if discrete:
            edges = model.edges[seed, fold]
            steps = model.table[list(model.survival[: len(edges)])].to_numpy(float)[unseen]
            found[unseen] = interpolate(np.array(edges), steps, grid)
        else:
            seen = at[(split[at] == "train") & np.isfinite(risk[at])]
            hazard = breslow(labels.time[rows[seen]], labels.event[rows[seen]], risk[seen], grid)
            centred = np.clip(risk[unseen] - risk[seen].mean(), -_LARGEST, _LARGEST)
            found[unseen] = np.exp(-hazard[None, :] * np.exp(centred)[:, None])
    return pd.DataFrame(found, columns=[f"s{j}" for j in range(len(grid))], index=model.table.index)


def breslow(time: np.ndarray, event: np.ndarray, risk: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Breslow's cumulative baseline hazard of a case of mean risk.

    Args:
        time, event, risk: (n,), of the training part; risk is a log hazard ratio.
        at: (t,), times to read it at.

    Returns:
        float64 (t,).
    """
    ratio = np.exp(np.clip(risk - risk.mean(), -_LARGEST, _LARGEST))
    times, starts = np.unique(np.sort(time), return_index=True)
    order = np.argsort(time, kind="stable")
    at_risk = np.cumsum(ratio[order][::-1])[::-1][starts]
    deaths = np.add.reduceat(event[order].astype(float), starts)
    hazard = np.concatenate([[0.0], np.cumsum(deaths / at_risk)])
    read: np.ndarray = hazard[np.searchsorted(times, at, side="right")]
    return read


def interpolate(edges: np.ndarray, survival: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Survival between bin edges, a straight line from 1 at time 0; flat after the last edge.

    Args:
        edges: (k,), ascending, positive.
        survival: (n, k), the probability of outliving each edge.
        grid: (t,).

    Returns:
        float64 (n, t).
    """
    knots = np.concatenate([[0.0], edges])
    values = np.concatenate([np.ones((len(survival), 1)), survival], axis=1)
    return (
        np.stack([np.interp(grid, knots, row) for row in values]) if len(values) else values[:, :0]
    )
