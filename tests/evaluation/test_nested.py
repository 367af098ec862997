"""The table of what nested cross-validation chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.model_meta import GridPoint, Nested

Make = Callable[..., Any]
GRID = [
    GridPoint({"learning_rate": 1e-3, "dropout": 0.5}, 4, 0.7, 0.1),
    GridPoint({"learning_rate": 1e-4, "dropout": 0.5}, 9, 0.8, 0.2),
    GridPoint({"learning_rate": 1e-5, "dropout": 0.5}, None, None, None),
]
CHOSEN = Nested(GRID[1].point, 9, "metric", "metric", 0.8, GRID, 3, 4, 13)


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("survival", "c_index"), ("classification", "auc"), ("regression", "pearson")],
)
def test_the_choice_stands_beside_the_outer_test(results: Make, kind: str, metric: str) -> None:
    house = results(kind, inner=4)
    house.add("student", 0.3, seeds=(0, 1), meta={"nested": CHOSEN})
    house.add("other", 0.9, seeds=(0, 1))
    house.evaluate()
    table = pd.read_parquet(house.out / "nested.parquet")
    assert set(table["model"]) == {"student"}
    assert len(table) == 2 * 3 * 3  # seeds, folds, points
    assert set(table["judged_by"]) == {metric}
    assert (table["n_inner"] == 60).all() and (table["n_shared"] == 0).all()
    chosen = table[table["chosen"]]
    assert (chosen["learning_rate"] == 1e-4).all() and (chosen["epoch"] == 9).all()
    assert table.loc[~table["chosen"], "outer"].isna().all()
    # Of one seed alone: neither the fold's nor the seed's own value, which pool.
    assert len(chosen["outer"].round(9).unique()) == 6
    folds = house.metric("student", metric)["fold_mean"]
    assert chosen["outer"].mean() == pytest.approx(folds, abs=0.05)
    assert np.isnan(table["inner"].to_numpy()).sum() == 6


def test_without_nesting_there_is_no_table_and_an_old_one_goes(results: Make) -> None:
    house = results("regression", inner=3)
    house.add("student", 0.3, meta={"nested": CHOSEN})
    house.add("other", 0.9)
    house.evaluate()
    assert (house.out / "nested.csv").is_file()
    house.add("student", 0.3, meta={"nested": None})
    house.evaluate()
    assert not list(house.out.glob("nested.*"))
