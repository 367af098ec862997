"""Ensembles and covariates: a regression on what models say of cases that they have not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from pipeline.config.models import CovariatesModel, EnsembleModel, ModelConfig
from pipeline.config.tasks import TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.folds import read_folds
from pipeline.contracts.model_meta import read_meta
from pipeline.contracts.stacking import OutOfFold, write_out_of_fold
from pipeline.errors import ArtifactError, UserError
from pipeline.files.parquet import write_table
from pipeline.training import out_of_fold, stacking
from tests.evaluation.conftest import NAME, TASKS, Results
from tests.training.test_stage import TASKS as TRAINED
from tests.training.test_stage import train

KINDS = ("survival", "classification", "regression")


def house(root: Path, kind: str = "regression", n: int = 150, **columns: Any) -> Results:
    """A good, a middling and a useless model, with predictions of cases that they did not see."""
    made = Results(root, TASKS[kind], n=n, **columns)
    for name, noise in (("good", 0.4), ("fair", 0.8), ("useless", 30.0)):
        table = made.add(name, noise, meta={"model": {"kind": "linear"}, "n_parameters": 10})
        unseen(made, name, table)
    return made


def unseen(made: Results, name: str, table: pd.DataFrame, lack: tuple[str, ...] = ()) -> None:
    """Its own predictions again, as if other trainings had made them."""
    train = table[(table["split"] == "train") & ~table["case_id"].isin(lack)]
    rows = train.drop(columns="split").assign(part=0)
    if "risk" in rows:
        ends = train.groupby("fold")["risk"].agg(["mean", "std"])
        rows["risk_mean"] = rows["fold"].map(ends["mean"])
        rows["risk_deviation"] = rows["fold"].map(ends["std"])
    write_table(made.folder(name) / "out_of_fold.parquet", rows)
    for fold, own in rows.groupby("fold"):
        folder = made.folder(name) / f"fold_{fold}" / "seed_0"
        write_out_of_fold(folder, OutOfFold("f", 2.0), own.to_dict("list"))


def stack(made: Results, model: Any, nested: bool = False, **covariates: Any) -> pd.DataFrame:
    stacking.run(
        model_name="stack", model=model, task_name=NAME, task=made.task, seeds=(0,), nested=nested,
        covariates=covariates, root=made.root,
    )  # fmt: skip
    return pd.read_parquet(made.folder("stack") / "predictions.parquet")


def ensemble(*of: str, covariates: tuple[str, ...] = ()) -> EnsembleModel:
    return EnsembleModel(kind="ensemble", of=of, covariates=covariates)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_is_better_than_its_members_and_knows_the_useless_one(
    tmp_path: Path, kind: str
) -> None:
    made = house(tmp_path, kind)
    stack(made, ensemble("good", "fair", "useless"))
    made.models.append("stack")
    made.evaluate(student="stack")
    metric = {"survival": "c_index", "classification": "auc", "regression": "r2"}[kind]
    value = {name: made.metric(name, metric)["value"] for name in made.models}
    assert value["stack"] > max(value["good"], value["fair"]) - 0.005
    for fold in range(3):
        told = read_meta(made.folder("stack") / f"fold_{fold}" / "seed_0").network
        reach = np.array(told["weights"]) * np.array(told["spread"])
        assert reach[:2].min() > 2 * reach[2] >= 0


def test_every_case_of_every_part_is_predicted_once(tmp_path: Path) -> None:
    made = house(tmp_path)
    found = stack(made, ensemble("good", "fair"))
    wanted = pd.read_parquet(made.folder("good") / "predictions.parquet")
    keys = ["fold", "split", "case_id"]
    assert set(map(tuple, found[keys].to_numpy())) == set(map(tuple, wanted[keys].to_numpy()))
    assert not found.duplicated(keys).any()


def test_test_cases_decide_nothing(tmp_path: Path) -> None:
    made = house(tmp_path)
    before = stack(made, ensemble("good", "fair")).set_index(["fold", "split", "case_id"])
    tested = set(read_folds(made.root, NAME)[0].test)
    cases = made.cases.assign(
        score=made.cases["score"].where(~made.cases["case_id"].isin(tested), 1e3)
    )
    write_table(made.root / "cases.parquet", cases)
    after = stack(made, ensemble("good", "fair")).set_index(["fold", "split", "case_id"])
    pd.testing.assert_series_equal(before.loc[0, "pred_score"], after.loc[0, "pred_score"])
    assert abs(before.loc[1, "pred_score"] - after.loc[1, "pred_score"]).max() > 1


def test_weights_are_learned_from_predictions_of_unseen_cases(tmp_path: Path) -> None:
    """A member that has learned its training cases by heart gains nothing by it."""
    made = house(tmp_path)
    table = made.add("heart", 30.0, meta={"model": {"kind": "linear"}})
    unseen(made, "heart", table)
    train = table["split"] == "train"
    made.write(
        "heart", table.assign(pred_score=table["pred_score"].where(~train, table["true_score"]))
    )
    stack(made, ensemble("good", "heart"))
    told = read_meta(made.folder("stack") / "fold_0" / "seed_0").network
    reach = np.array(told["weights"]) * np.array(told["spread"])
    assert reach[1] < 0.2 * reach[0]


def test_a_case_that_lacks_a_member_is_predicted_by_the_others(tmp_path: Path) -> None:
    made = house(tmp_path)
    lack = tuple(made.cases["case_id"][::3])
    table = pd.read_parquet(made.folder("good") / "predictions.parquet")
    made.write("good", table[~table["case_id"].isin(lack)])
    unseen(made, "good", table, lack)
    found = stack(made, ensemble("good", "fair"))
    alone = stack(made, ensemble("fair"))
    both = found.merge(alone, on=["fold", "split", "case_id"], suffixes=("", "_alone"))
    assert len(both) == len(found) == len(alone)
    same = np.isclose(both["pred_score"], both["pred_score_alone"])
    assert (same == both["case_id"].isin(lack)).all()
    patterns = read_meta(made.folder("stack") / "fold_0" / "seed_0").network["patterns"]
    assert [p["members"] for p in patterns] == [["fair"]]


@pytest.mark.parametrize("kind", KINDS)
def test_covariates_alone_and_beside_a_model(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    n = 150
    made = house(tmp_path, kind, n)
    age = 60 + 8 * (made.state + rng.normal(size=n))
    grade = np.array(["low", "high", None], dtype=object)[rng.integers(0, 3, n)]
    write_table(made.root / "cases.parquet", made.cases.assign(age=age, grade=grade))
    metric = {"survival": "c_index", "classification": "auc", "regression": "r2"}[kind]
    value = {}
    for name, model in {
        "alone": CovariatesModel(kind="covariates", covariates=("age", "grade")),
        "beside": ensemble("fair", covariates=("age", "grade")),
    }.items():
        made.write(name, stack(made, model, age="auto", grade="auto"))
    made.evaluate(student="beside")
    value = {name: made.metric(name, metric)["value"] for name in made.models}
    assert value["beside"] > max(value["alone"], value["fair"]) > 0
    assert value["alone"] > {"survival": 0.6, "classification": 0.6, "regression": 0.2}[kind]
    told = read_meta(made.folder("stack") / "fold_0" / "seed_0")
    assert told.network["covariates"] == ["age", "grade: high", "grade: low", "grade: missing"]


def test_a_survival_ensemble_gives_curves(tmp_path: Path) -> None:
    made = house(tmp_path, "survival")
    made.write("stack", stack(made, ensemble("good", "fair")))
    made.evaluate(student="stack")
    assert np.isfinite(made.metric("stack", "integrated_brier")["value"])


def test_its_cost_is_that_of_its_members(tmp_path: Path) -> None:
    made = house(tmp_path)
    stack(made, ensemble("good", "fair"))
    meta = read_meta(made.folder("stack") / "fold_0" / "seed_0")
    assert meta.n_parameters == 10 + 10 + 2 + 1
    assert meta.seconds > 2 * (1.0 + 2.0)
    assert meta.inference_seconds_per_case == pytest.approx(0.002)


def test_predictions_of_other_folds_are_refused(tmp_path: Path) -> None:
    made = house(tmp_path)
    table = pd.read_parquet(made.folder("good") / "out_of_fold.parquet")
    write_table(made.folder("good") / "out_of_fold.parquet", table.assign(fold=7))
    with pytest.raises(ArtifactError, match="not of today's folds"):
        stack(made, ensemble("good"))


def test_too_few_cases_are_refused(tmp_path: Path) -> None:
    made = house(tmp_path)
    table = pd.read_parquet(made.folder("good") / "out_of_fold.parquet")
    write_table(made.folder("good") / "out_of_fold.parquet", table.groupby("fold").head(4))
    with pytest.raises(UserError, match="4 training cases are too few"):
        stack(made, ensemble("good"))


# --- predictions of unseen cases ------------------------------------------------------------------


def predicted(root: Path, model: dict[str, Any], task: str = "score", **cfg: Any) -> pd.DataFrame:
    train(root, model, task, **cfg)
    out_of_fold.run(
        cfg=TrainingConfig(**{"epochs": 2, "batch_size": 6, **cfg}),
        model_name="model",
        model=TypeAdapter(ModelConfig).validate_python(model),
        task_name=task,
        task=TypeAdapter(TaskConfig).validate_python(TRAINED[task]),
        root=root,
        versions="code",
        workers=1,
        device="cpu",
    )
    return pd.read_parquet(root / "models" / task / "model" / "out_of_fold.parquet")


@pytest.mark.parametrize(
    "model",
    [
        {"kind": "linear"},
        {"kind": "concat", "d_model": 8},
        {"kind": "single", "teacher": "flat", "d_model": 8},
    ],
)
def test_every_training_case_is_predicted_by_a_model_that_has_not_seen_it(
    root: Path, model: dict[str, Any]
) -> None:
    found = predicted(root, model)
    for fold in read_folds(root, "score"):
        own = found[found["fold"] == fold.index]
        lacking = {"case03", "case10"} if model.get("teacher") == "flat" else set()
        assert sorted(own["case_id"]) == sorted(set(fold.train) - lacking)
        assert own["part"].nunique() > 1
    again = pd.read_parquet(root / "models" / "score" / "model" / "predictions.parquet")
    seen = again[again["split"] == "train"].merge(found, on=["fold", "case_id"])
    assert not np.isclose(seen["pred_score_x"], seen["pred_score_y"]).any()


def test_a_label_says_nothing_of_its_own_case(root: Path) -> None:
    before = predicted(root, {"kind": "linear"}).set_index(["fold", "case_id"])
    case = read_folds(root, "score")[0].train[0]
    cases = pd.read_parquet(root / "cases.parquet")
    # The inner parts are dealt by thirds of the score: it stays in its third.
    scores = cases["score"].where(cases["case_id"] != case, cases["score"] + 1e-3)
    write_table(root / "cases.parquet", cases.assign(score=scores))
    after = predicted(root, {"kind": "linear"}).set_index(["fold", "case_id"])
    assert after.loc[(0, case), "part"] == before.loc[(0, case), "part"]
    gap = (after["pred_score"] - before["pred_score"]).loc[0].abs()
    assert gap[case] < 1e-9 < gap.max()


def test_a_risk_comes_with_its_unit(root: Path) -> None:
    found = predicted(root, {"kind": "linear"}, "time")
    assert found["risk_deviation"].gt(0).all()
    assert found.groupby(["fold", "part"])["risk_mean"].nunique().eq(1).all()


def test_nested_parts_are_those_that_chose(root: Path) -> None:
    found = predicted(root, {"kind": "linear"}, nested={"grid": {"learning_rate": [1e-3, 1e-4]}})
    for fold in read_folds(root, "score"):
        own = found[found["fold"] == fold.index]
        for part, cases in enumerate(fold.inner):
            assert sorted(own.loc[own["part"] == part, "case_id"]) == sorted(cases)


def test_what_is_done_is_not_done_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = predicted(root, {"kind": "linear"})

    def never(*args: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(out_of_fold, "prepare", never)
    pd.testing.assert_frame_equal(predicted(root, {"kind": "linear"}), first)


def test_a_part_that_cannot_be_dealt_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: Callable[..., list[np.ndarray]] = lambda *args: []  # noqa: E731
    monkeypatch.setattr(out_of_fold, "parts", nothing)
    with pytest.raises(UserError, match="cannot be dealt into inner parts"):
        predicted(root, {"kind": "linear"})
