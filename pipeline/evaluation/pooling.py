"""Out-of-fold predictions of all cases as if of one model.

Risks of different trainings have no common scale, so each is standardised with the mean and
deviation of its own training part before seeds are averaged and folds are pooled. Probabilities and
predicted values need no such step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.evaluation.predictions import KEYS, Predictions


@dataclasses.dataclass(frozen=True)
class Pool:
    """A model's predictions, ready to be pooled.

    Attributes:
        name: the model.
        table: `KEYS`, `values` and `curves`; one row per seed, fold, part and case.
        values: columns of predictions; the standardised risk is `score`.
        curves: columns of predicted survival at the grid; empty where there is none.
        constant_fits: trainings whose risk is the same for all their training cases.
    """

    name: str
    table: pd.DataFrame
    values: tuple[str, ...]
    curves: tuple[str, ...] = ()
    constant_fits: int = 0


@dataclasses.dataclass(frozen=True)
class Pooled:
    """One prediction a case, in the order of a list of cases.

    Attributes:
        values: float64 (n, d), NaN where the model has none for a case.
        curves: float64 (n, t), or None.
        n: int64 (n,), how many predictions were averaged.
    """

    values: np.ndarray
    curves: np.ndarray | None
    n: np.ndarray

    @property
    def there(self) -> np.ndarray:
        """bool (n,): the cases that have a prediction."""
        there: np.ndarray = np.isfinite(self.values).all(axis=1)
        return there


def prepare(model: Predictions, curves: pd.DataFrame | None = None) -> Pool:
    """A model's predictions on a common scale.

    Args:
        model: the predictions.
        curves: survival at the grid, indexed as the model's table.
    """
    if model.columns != ("risk",):
        return Pool(model.name, model.table[[*KEYS, *model.columns]], model.columns)
    table = model.table[[*KEYS, "risk"]].rename(columns={"risk": "score"})
    names: tuple[str, ...] = ()
    if curves is not None:
        table, names = pd.concat([table, curves], axis=1), tuple(curves.columns)
    table, constant = _standardised(table)
    return Pool(model.name, table, ("score",), names, constant)


def average(name: str, pools: Sequence[Pool]) -> Pool:
    """The naive mean of several models, seed by seed; of a case, over the models that have it."""
    values = pools[0].values
    curves = pools[0].curves if all(pool.curves for pool in pools) else ()
    together = pd.concat([pool.table[[*KEYS, *values, *curves]] for pool in pools])
    table = together.groupby(KEYS, sort=True, as_index=False).mean()
    constant = 0
    if values == ("score",):
        table, constant = _standardised(table)
    return Pool(name, table, values, curves, constant)


def _standardised(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """`score` less the mean, over the deviation, of the training part of the same training."""
    train = table[table["split"] == "train"].groupby(["seed", "fold"])["score"]
    stats = pd.DataFrame({"mean": train.mean(), "deviation": train.std(ddof=0)}).reset_index()
    constant = ~(stats["deviation"] > 1e-9 * (1 + stats["mean"].abs()))
    stats["deviation"] = stats["deviation"].where(~constant, 1.0)
    joined = table[["seed", "fold"]].merge(stats, on=["seed", "fold"], how="left")
    score = (table["score"].to_numpy() - joined["mean"].to_numpy()) / joined["deviation"].to_numpy()
    return table.assign(score=score), int(constant.sum())


def pooled(
    pool: Pool,
    cases: Sequence[str],
    split: str = "test",
    fold: int | None = None,
    seed: int | None = None,
) -> Pooled:
    """One prediction a case: the mean over seeds within a fold, then over folds.

    Args:
        pool: the model.
        cases: the cases wanted, in order.
        split: which part's predictions.
        fold, seed: only those of this fold or seed.
    """
    table = pool.table[pool.table["split"] == split]
    if fold is not None:
        table = table[table["fold"] == fold]
    if seed is not None:
        table = table[table["seed"] == seed]
    columns = [*pool.values, *pool.curves]
    within = table.groupby(["fold", "case_id"], sort=True)[columns].mean()
    means = within.groupby(level="case_id").mean().reindex(list(cases))
    counts = table[np.isfinite(table[pool.values[0]])].groupby("case_id").size()
    return Pooled(
        values=means[list(pool.values)].to_numpy(np.float64),
        curves=means[list(pool.curves)].to_numpy(np.float64) if pool.curves else None,
        n=counts.reindex(list(cases)).fillna(0).to_numpy(np.int64),
    )


def risk_groups(pool: Pool, cases: Sequence[str], quantiles: Sequence[float]) -> np.ndarray:
    """Risk groups of test cases, by cut-offs fitted on the training part of their own fold.

    Args:
        pool: a survival model.
        cases: test cases, in order.
        quantiles: of the training scores (mean over seeds), e.g. 0.5; a score above a cut-off is in
            the higher group.

    Returns:
        int64 (n,), 0 for the lowest risk; -1 where the model has no prediction. A case that
        overlapping folds test more than once is put in the middle of its groups.
    """
    scores = pool.table.groupby(["split", "fold", "case_id"], sort=True)["score"].mean().dropna()
    table = scores.reset_index()
    found: dict[str, list[int]] = {}
    for _, fold in table.groupby("fold", sort=True):
        train = fold.loc[fold["split"] == "train", "score"]
        test = fold[fold["split"] == "test"]
        if train.empty:
            continue
        groups = np.searchsorted(np.quantile(train, quantiles), test["score"], side="left")
        for case, group in zip(test["case_id"], groups, strict=True):
            found.setdefault(str(case), []).append(int(group))
    return np.array([round(float(np.median(found[c]))) if c in found else -1 for c in cases])
