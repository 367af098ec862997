"""What the slides say beyond the covariates, and what is lost without a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.config.controls import Controls
from pipeline.evaluation import stage
from pipeline.files.parquet import write_table
from tests.evaluation.conftest import NAME, Results

CONTROLS = Controls(covariates="clinical", with_covariates="both")


def evaluated(made: Results, controls: Controls = CONTROLS) -> None:
    stage.run(
        cfg=stage.EvaluationConfig(student="student", bootstraps=60),
        task_name=NAME,
        task=made.task,
        models=made.models,
        root=made.root,
        controls=controls,
    )


@pytest.mark.parametrize("kind", ["survival", "classification", "regression"])
def test_slides_that_say_more_are_told_from_those_that_do_not(
    results: Callable[..., Any], kind: str
) -> None:
    made: Results = results(kind, n=150)
    for name, noise in (("student", 0.5), ("clinical", 2.0), ("both", 0.45)):
        made.add(name, noise)
    evaluated(made)
    found = pd.read_csv(made.out / "covariates.csv").set_index("metric")
    primary = {"survival": "c_index", "classification": "auc", "regression": "r2"}[kind]
    row = found.loc[primary]
    assert (row["student"], row["other"]) == ("both", "clinical")
    assert row["difference"] == pytest.approx(row["with_value"] - row["other_value"]) and (
        row["difference"] > 0.05
    )
    assert row["likelihood_ratio"] > 20 and row["p_likelihood"] < 1e-4
    made.write("student", _shuffled(made))
    evaluated(made)
    nothing = pd.read_csv(made.out / "covariates.csv").set_index("metric").loc[primary]
    assert nothing["likelihood_ratio"] < 8 and nothing["p_likelihood"] > 0.002


def _shuffled(made: Results) -> pd.DataFrame:
    """Predictions of the student, of other cases."""
    table = pd.read_parquet(made.folder("student") / "predictions.parquet")
    said = [c for c in table if c == "risk" or c.startswith(("prob_", "pred_"))]
    rng = np.random.default_rng(5)
    for _, rows in table.groupby(["fold", "split"]).groups.items():
        table.loc[rows, said] = table.loc[rng.permutation(rows), said].to_numpy()
    return table


def test_without_covariates_there_is_no_such_table(results: Callable[..., Any]) -> None:
    made: Results = results("regression")
    made.add("student", 0.5)
    evaluated(made, Controls())
    assert not (made.out / "covariates.csv").exists()
    assert not (made.out / "missing_teachers.csv").exists()


def test_what_members_weigh_is_written_fold_by_fold(results: Callable[..., Any]) -> None:
    made: Results = results("regression")
    network = {
        "members": ["a", "b"], "weights": [2.0, 1.0], "spread": [0.5, 3.0],
        "covariates": ["age"], "coefficients": [[0.4]],
    }  # fmt: skip
    made.add("student", 0.5, meta={"model": {"kind": "ensemble"}, "network": network})
    evaluated(made, Controls())
    found = pd.read_csv(made.out / "stacks.csv")
    assert found["fold"].nunique() == 3
    one = found[found["fold"] == 0].set_index("part")
    assert one["share"].dropna().to_dict() == {"a": 0.25, "b": 0.75}
    assert one["weight"].to_dict() == {"a": 2.0, "b": 1.0, "age": 0.4}


def test_cases_that_lack_a_teacher_are_measured_apart(results: Callable[..., Any]) -> None:
    made: Results = results("regression", n=150)
    lack = made.cases["case_id"][::3]
    ids = made.cases["case_id"]
    coverage = pd.concat(
        [
            pd.DataFrame({"slide_id": ids, "case_id": ids, "teacher": teacher, "status": "ok"})
            for teacher in ("always", "seldom")
        ]
    )
    gone = coverage["teacher"].eq("seldom") & coverage["case_id"].isin(lack)
    write_table(made.root / "coverage.parquet", coverage.assign(
        status=coverage["status"].where(~gone, "missing")))  # fmt: skip
    made.add("student", 0.2)
    table = made.add("hurt", 0.2)
    worse = table["case_id"].isin(lack)
    rng = np.random.default_rng(0)
    noise = 3 * rng.normal(size=len(table)) * worse
    made.write("hurt", table.assign(pred_score=table["pred_score"] + noise))
    made.write("blind", table[~worse])
    evaluated(made, Controls())
    found = pd.read_csv(made.out / "missing_teachers.csv").set_index(["model", "cases"])
    assert found.loc[("hurt", "all teachers"), "n"] == 100
    assert found.loc[("hurt", "without one"), "n"] == 50
    assert found.loc[("hurt", "without one"), "lost_low"] > 0.5
    assert abs(found.loc[("student", "without one"), "lost"]) < 0.1
    assert found.loc[("blind", "without one"), "n"] == 0
    assert np.isnan(found.loc[("blind", "without one"), "value"])
    assert set(found.index.get_level_values("cases")) == {"all teachers", "without one"}
