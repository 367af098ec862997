"""A stack that is read back says of cases what its training said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.contracts.model_meta import read_meta
from pipeline.files.parquet import write_table
from pipeline.linear.design import Design
from pipeline.linear.stack import Stack
from pipeline.training.applied_stack import AppliedStack, in_common, stack_of
from pipeline.training.regression import RegressionHead
from pipeline.training.stacking import with_ends
from pipeline.training.tasks import from_facts
from tests.training.test_stacking import KINDS, ensemble, house, stack, unseen


@pytest.mark.parametrize("kind", KINDS)
def test_cases_that_lack_a_member_are_predicted_as_in_training(tmp_path: Path, kind: str) -> None:
    made = house(tmp_path, kind)
    path = made.folder("fair") / "predictions.parquet"
    table = pd.read_parquet(path)
    lack = tuple(table["case_id"].unique()[::7])
    unseen(made, "fair", table, lack)
    write_table(path, table[~table["case_id"].isin(lack)])
    wanted = stack(made, ensemble("good", "fair"))
    meta = read_meta(made.folder("stack") / "fold_1" / "seed_0")
    head = from_facts(meta.head)
    applied = stack_of(meta.network, head)
    assert len(applied.patterns) == 2
    own = wanted[(wanted["fold"] == 1) & (wanted["split"] == "test")]
    assert set(own["case_id"]) & set(lack)
    place = {case: i for i, case in enumerate(own["case_id"])}
    z = np.full((len(own), 2, head.outputs), np.nan)
    for m, name in enumerate(applied.members):
        said = pd.read_parquet(made.folder(name) / "predictions.parquet")
        rows = with_ends(said[said["fold"] == 1])
        rows = rows[rows["case_id"].isin(place)]
        at = [place[case] for case in rows["case_id"]]
        z[at, m] = in_common({c: rows[c].to_numpy() for c in rows.columns}, head)
    known, out = applied(z, np.zeros((len(own), 0)))
    assert len(known) == len(own)
    columns = head.columns(out, np.zeros((len(own), 2), np.float32))
    for name in [c for c in own if c.startswith(("risk", "prob_", "pred_"))]:
        np.testing.assert_allclose(columns[name], own[name], rtol=1e-5, atol=1e-6)


def test_a_case_unlike_all_that_training_met_is_read_by_the_most_of_its_members() -> None:
    none, head = np.zeros(0), RegressionHead(("t",), (0.0,), (1.0,), "mse", {})
    design = Design((), none, none, {})

    def of(*weights: float) -> Stack:
        return Stack(np.array(weights), np.zeros((0, 1)), np.zeros(1), 0.1)

    patterns = {(0, 1, 2): of(1, 1, 1), (0,): of(5.0), (1, 2): of(2, 3)}
    applied = AppliedStack(("a", "b", "c"), design, patterns, head)
    nan = np.nan
    z = np.array([[1, 1, 1], [1, 1, nan], [nan, 1, 1], [nan, nan, 1]])[:, :, None]
    known, out = applied(z, np.zeros((4, 0)))
    assert known.tolist() == [0, 1, 2]
    assert out[:, 0].tolist() == [3.0, 5.0, 5.0]
