"""Many regression targets: the table of targets, the profiles of cases, the means over both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pipeline.config.tasks import RegressionTask
from pipeline.contracts.folds import PARTS, read_folds
from pipeline.evaluation import regression_metrics
from pipeline.evaluation.bootstrap import resample_weights
from pipeline.evaluation.regression_metrics import RegressionScorer
from pipeline.evaluation.targets import benjamini_hochberg, correlation_p
from pipeline.files.artifacts import read_json
from tests.evaluation.conftest import Results

N = 90
GENES = [f"G{i:02d}" for i in range(60)]  # more than stand in metrics.csv one by one
CONSTANT, SAID_FLAT = "G58", "G59"


def truth() -> pd.DataFrame:
    """Genes that follow the cases' state less and less; one is the same for all."""
    state = np.random.default_rng(0).normal(size=N)
    noise = np.random.default_rng(1).normal(size=(N, len(GENES)))
    table = pd.DataFrame(state[:, None] + 0.1 * np.arange(len(GENES)) * noise, columns=GENES)
    return (table + 5).assign(**{CONSTANT: 3.0})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Results:
    genes = truth()
    task = RegressionTask(type="regression", targets=["G*"])
    made = Results(tmp_path_factory.mktemp("genes"), task, **{g: genes[g] for g in GENES})
    row_of = {case: i for i, case in enumerate(made.cases["case_id"])}
    for model, noise in (("student", 0.3), ("single_other", 2.0)):
        rng = np.random.default_rng(len(model))
        tables = []
        for fold in read_folds(made.root, "task"):
            keys = [(part, case) for part in PARTS for case in fold.part(part)]
            rows = np.array([row_of[case] for _, case in keys])
            said = made.state[rows, None] + noise * rng.normal(size=(len(rows), len(GENES)))
            columns = {f"pred_{g}": said[:, i] for i, g in enumerate(GENES)}
            columns |= {f"true_{g}": genes[g].to_numpy()[rows] for g in GENES}
            columns[f"pred_{SAID_FLAT}"] = np.full(len(rows), 5.0)
            frame = pd.DataFrame(columns)
            frame.insert(0, "case_id", [case for _, case in keys])
            frame.insert(0, "split", [part for part, _ in keys])
            tables.append(frame.assign(seed=0, fold=fold.index))
        made.write(model, pd.concat(tables, ignore_index=True))
    made.evaluate()
    return made


def test_every_target_of_every_model_is_written(house: Results) -> None:
    table = pd.read_csv(house.out / "targets.csv")
    assert list(table["target"]) == GENES * 2 and len(table["model"].unique()) == 2
    cases = pd.read_parquet(house.out / "per_case.parquet")
    mine = cases[cases["model"] == "student"]
    rows = table[table["model"] == "student"].set_index("target")
    for gene in GENES[:4]:
        r = stats.pearsonr(mine[f"true_{gene}"], mine[f"pred_{gene}"])
        rank = stats.spearmanr(mine[f"true_{gene}"], mine[f"pred_{gene}"])
        row = rows.loc[gene]
        assert row["pearson"] == pytest.approx(r.statistic)
        assert row["p_value"] == pytest.approx(r.pvalue, rel=1e-6)
        assert row["spearman"] == pytest.approx(rank.statistic)
        assert row["pearson_low"] < row["pearson"] < row["pearson_high"]
        assert row["q_value"] >= row["p_value"]
        each = [stats.pearsonr(f[f"true_{gene}"], f[f"pred_{gene}"])[0] for _, f in _folds(mine)]
        assert row["pearson_folds"] == pytest.approx(np.mean(each))
    assert rows.loc[[CONSTANT, SAID_FLAT], "pearson"].isna().all()
    assert rows["pearson"].iloc[:10].mean() > rows["pearson"].iloc[45:57].mean() + 0.3


def _folds(mine: pd.DataFrame) -> Any:
    return mine.groupby("fold")


def test_means_pass_over_constant_targets_but_not_over_flat_predictions(house: Results) -> None:
    rows = pd.read_csv(house.out / "targets.csv").query("model == 'student'").set_index("target")
    measured = pd.read_parquet(house.out / "metrics.parquet")
    assert not measured["metric"].str.contains("[", regex=False).any()
    known = rows.drop(index=[CONSTANT])
    assert np.isnan(known.loc[SAID_FLAT, "pearson"])
    expected = known["pearson"].fillna(0).mean()
    assert house.metric("student", "pearson")["value"] == pytest.approx(expected)
    assert house.metric("student", "r2")["value"] == pytest.approx(known["r2"].mean())
    assert house.metric("student", "mae")["value"] == pytest.approx(rows["mae"].mean())


def test_a_case_is_measured_over_the_targets_that_vary_in_training(house: Results) -> None:
    table = pd.read_parquet(house.out / "profiles.parquet").query("model == 'student'")
    assert (table["n_targets"] == len(GENES) - 1).all()
    fold = read_folds(house.root, "task")[1]
    case = fold.test[0]
    genes = truth().drop(columns=CONSTANT).set_index(house.cases["case_id"])
    train = genes.loc[list(fold.train)]
    mean, deviation = train.mean(), train.std(ddof=0)
    cases = pd.read_parquet(house.out / "per_case.parquet")
    row = cases[(cases["model"] == "student") & (cases["case_id"] == case)].iloc[0]
    said = pd.Series({g: row[f"pred_{g}"] for g in genes.columns})
    expected = stats.pearsonr((genes.loc[case] - mean) / deviation, (said - mean) / deviation)
    found = table.loc[table["case_id"] == case, "pearson"].item()
    assert found == pytest.approx(expected.statistic)


def test_of_many_targets_the_ends_and_the_middle_have_points(house: Results) -> None:
    scatter = read_json(house.out / "curves.json")["scatter"]
    rows = pd.read_csv(house.out / "targets.csv").query("model == 'student'")
    ranked = rows.dropna(subset="pearson").sort_values("pearson", ascending=False)
    drawn = set(scatter["student"])
    assert set(scatter["single_other"]) == drawn and len(drawn) == 9
    assert drawn >= {*ranked["target"][:3], *ranked["target"][-3:]}
    middle = ranked["target"][26:32]
    assert len(drawn & set(middle)) == 3
    r = scatter["student"][ranked["target"].iloc[0]]["pearson"]
    assert r == pytest.approx(ranked["pearson"].iloc[0])


def test_targets_in_blocks_give_the_same_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    genes = truth().to_numpy()
    weights = resample_weights(N, 4, 0)
    said = genes + np.random.default_rng(3).normal(size=genes.shape)
    whole = RegressionScorer(genes, GENES, weights)(said, None)
    monkeypatch.setattr(regression_metrics, "BLOCK_VALUES", 7 * len(weights))
    parts = RegressionScorer(genes, GENES, weights)(said, None)
    assert set(parts) == {"r2", "pearson", "mae", "rmse"}
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values)
    few = RegressionScorer(genes[:, :10], GENES[:10], weights)(said[:, :10], None)
    assert few["pearson"].mean() == pytest.approx(
        np.mean([few[f"pearson[{gene}]"].mean() for gene in GENES[:10]])
    )


def test_false_discoveries_are_bounded_and_p_values_are_those_of_the_library() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 25))
    found = stats.pearsonr(x, y)
    np.testing.assert_allclose(correlation_p(np.array([found.statistic]), 25), found.pvalue)
    q = benjamini_hochberg(np.array([0.01, np.nan, 0.02, 0.5]))
    np.testing.assert_allclose(q, [0.03, np.nan, 0.03, 0.5])


def test_one_target_has_no_table_of_targets(results: Callable[..., Any]) -> None:
    house = results("regression")
    house.add("student", 0.3)
    house.add("other", 0.5)
    house.evaluate()
    assert not (house.out / "targets.csv").exists()
