"""The evaluation stage on made-up predictions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sksurv.metrics import concordance_index_censored

from pipeline.config.tasks import ClassificationTask, SurvivalTask
from pipeline.contracts.cohort_facts import write_cohort_facts
from pipeline.contracts.folds import read_folds
from pipeline.errors import ArtifactError, ConfigError
from pipeline.files.artifacts import read_json, write_json
from tests.contracts.test_cohort_facts import cohort_facts

Make = Callable[..., Any]


def _three(house: Any, **options: Any) -> Any:
    house.add("student", 0.3, **options)
    house.add("single_good", 0.6, **options)
    house.add("single_poor", 3.0, **options)
    return house


@pytest.mark.parametrize("kind", ["survival", "classification", "regression"])
def test_every_kind_of_task_is_measured_and_compared(results: Make, kind: str) -> None:
    house = _three(results(kind))
    found = house.evaluate()
    assert (found["labelled"], found["type"], found["n_cases"]) == ("test", kind, 90)
    assert found["models"][0]["model"] == "student"
    assert {m["model"] for m in found["models"]} == {*house.models, "average"}
    assert found["average_of"] == ["single_good", "single_poor"]
    for model in found["models"]:
        assert model["low"] < model["value"] < model["high"] and model["n"] == 90
    pairs = {pair["other"]: pair for pair in found["comparisons"]}
    assert set(pairs) == {"single_good", "single_poor", "average"}
    poor = pairs["single_poor"]
    assert poor["low"] > 0 and poor["p_holm"] <= 0.1 and poor["n"] == 90
    assert pairs["single_good"]["difference"] < poor["difference"]
    for how in ("on_test", "on_validation"):
        best = found["best_single"][how]
        assert best["model"] == "single_good"
        assert best["comparison"] == pairs["single_good"]
    cases = pd.read_parquet(house.out / "per_case.parquet")
    assert cases.groupby("model").size().to_dict() == dict.fromkeys([*house.models, "average"], 90)
    curves = read_json(house.out / "curves.json")
    assert len(curves["forest"]["models"]) == 4 and len(curves["forest"]["differences"]) == 3


def test_two_runs_give_the_same_bytes_whatever_the_order_of_the_models(results: Make) -> None:
    house = results("survival", n=45)
    house.add("student", 0.3)
    house.add("other", 0.6)
    found = house.evaluate()
    names = ("metrics.csv", "comparisons.csv", "curves.json", "evaluation.json")
    first = [(house.out / name).read_bytes() for name in names]
    house.models.reverse()
    house.evaluate()
    assert [(house.out / name).read_bytes() for name in names] == first
    assert house.evaluate(seed=1)["models"][0]["low"] != found["models"][0]["low"]


def test_the_scale_of_a_training_does_not_matter(results: Make) -> None:
    house = results("survival")
    house.add("student", 0.3, seeds=(0, 1))
    house.evaluate()
    plain = house.metric("student", "c_index")
    table = house.add("student", 0.3, seeds=(0, 1), scale=lambda seed, fold: 10.0**fold + seed)
    house.evaluate()
    scaled = house.metric("student", "c_index")
    assert scaled["value"] == pytest.approx(plain["value"])
    raw = table[table["split"] == "test"].groupby("case_id")[["risk", "time", "event"]].mean()
    naive = concordance_index_censored(raw["event"] == 1, raw["time"], raw["risk"])[0]
    assert abs(naive - plain["value"]) > 1e-3


def test_pooled_values_and_fold_values_are_those_of_the_library(results: Make) -> None:
    house = results("survival")
    table = house.add("student", 0.8)
    house.evaluate()
    scores, per_fold = [], []
    for _, fold in table.groupby("fold"):
        train, test = (fold[fold["split"] == part] for part in ("train", "test"))
        score = (test["risk"] - train["risk"].mean()) / train["risk"].std(ddof=0)
        scores.append(test.assign(score=score))
        per_fold.append(
            concordance_index_censored(test["event"] == 1, test["time"], test["risk"])[0]
        )
    whole = pd.concat(scores)
    value = concordance_index_censored(whole["event"] == 1, whole["time"], whole["score"])[0]
    row = house.metric("student", "c_index")
    assert row["value"] == pytest.approx(value)
    assert row["fold_mean"] == pytest.approx(np.mean(per_fold))
    assert row["fold_std"] == pytest.approx(np.std(per_fold, ddof=1))
    cases = pd.read_parquet(house.out / "per_case.parquet").set_index("case_id")
    assert cases.loc[whole["case_id"], "score"].to_numpy() == pytest.approx(whole["score"])


def test_seeds_are_averaged_and_their_spread_is_told(results: Make) -> None:
    house = results("survival")
    house.add("student", 1.5, seeds=(0, 1, 2))
    found = house.evaluate()
    row = house.metric("student", "c_index")
    assert row["value"] > row["seed_mean"] and row["seed_std"] > 0 and row["n_seeds"] == 3
    assert found["seeds"] == [0, 1, 2]
    assert set(pd.read_parquet(house.out / "per_case.parquet")["n_predictions"]) == {3}


def test_the_average_is_that_of_the_single_models(results: Make) -> None:
    house = results("regression")
    tables = [house.add(f"m{i}", 1.0, meta={"model": {"kind": "single"}}) for i in range(2)]
    house.add("student", 0.1, meta={"model": {"kind": "concat"}, "n_parameters": 7})
    found = house.evaluate()
    assert found["average_of"] == ["m0", "m1"]
    both = sum(t[t["split"] == "test"].set_index("case_id")["pred_score"] for t in tables) / 2
    cases = pd.read_parquet(house.out / "per_case.parquet")
    mean = cases[cases["model"] == "average"].set_index("case_id")["pred_score"]
    assert mean.to_numpy() == pytest.approx(both[mean.index].to_numpy())
    assert {m["model"]: m["n_parameters"] for m in found["models"]}["student"] == 7


def test_the_best_single_teacher_may_be_that_of_a_linear_model(results: Make) -> None:
    house = results("regression", n=60)
    house.add("student", 0.2, meta={"model": {"kind": "concat"}, "teachers": ["a", "b"]})
    house.add("small", 1.0, meta={"model": {"kind": "single"}, "teachers": ["a"]})
    house.add("plain", 0.5, meta={"model": {"kind": "linear"}, "teachers": ["a"]})
    house.add("both", 0.3, meta={"model": {"kind": "linear"}, "teachers": ["a", "b"]})
    found = house.evaluate()
    assert found["best_single"]["on_validation"]["model"] == "plain"
    assert found["average_of"] == []


def test_cut_offs_come_from_the_training_part_of_the_same_fold(results: Make) -> None:
    house = results("survival")
    table = house.add("student", 0.3)
    house.evaluate()
    cases = pd.read_parquet(house.out / "per_case.parquet").set_index("case_id")
    for _, fold in table.groupby("fold"):
        cut = fold.loc[fold["split"] == "train", "risk"].median()
        test = fold[fold["split"] == "test"]
        high = cases.loc[test["case_id"], "group"].to_numpy() == "high"
        assert (high == (test["risk"] > cut).to_numpy()).all()
    panel = read_json(house.out / "curves.json")["kaplan_meier"]["student"]
    assert [g["n"] for g in panel["groups"]] == cases["group"].value_counts()[
        ["low", "high"]
    ].tolist()
    assert panel["logrank_p"] < 0.01 and panel["hazard_ratio"]["low"] > 1
    house.evaluate(cutoff="tertiles")
    panel = read_json(house.out / "curves.json")["kaplan_meier"]["student"]
    assert [g["label"] for g in panel["groups"]] == ["low", "middle", "high"]
    assert sum(g["at_risk"][0] for g in panel["groups"]) == 90


# --- what may be wrong with predictions -----------------------------------------------------------


def test_constant_missing_and_broken_predictions_are_counted(results: Make) -> None:
    house = _three(results("survival"))
    table = house.add("constant", 0.5)
    house.write("constant", table.assign(risk=3.0))
    broken = house.add("broken", 0.5)
    test = broken.index[broken["split"] == "test"]
    broken.loc[test[:4], "risk"] = [np.nan, np.inf, -np.inf, np.nan]
    house.write("broken", broken.drop(test[4:7]))
    nothing = house.add("nothing", 0.5)
    nothing.loc[nothing["split"] == "test", "risk"] = np.nan
    house.write("nothing", nothing)
    found = house.evaluate()
    rows = {m["model"]: m for m in found["models"]}
    assert rows["constant"]["value"] == 0.5 and rows["constant"]["n"] == 90
    assert (rows["broken"]["n"], rows["broken"]["n_missing"]) == (83, 7)
    assert (rows["nothing"]["value"], rows["nothing"]["n_missing"]) == (None, 90)
    pairs = {pair["other"]: pair for pair in found["comparisons"]}
    assert pairs["broken"]["n"] == 83 and "nothing" not in pairs
    told = "\n".join(found["problems"])
    assert "constant: 3 training(s) give all cases the same risk" in told
    assert "broken: 4 test prediction(s) were NaN or infinite" in told
    assert "broken: no prediction for 7 of the cases" in told
    assert "constant: no case is in the high risk group" in told


def test_comparisons_use_the_cases_that_both_models_have(results: Make) -> None:
    house = results("survival")
    table = house.add("student", 0.4)
    house.add("other", 0.4)
    part = table["case_id"] < "c060"
    house.write("student", table[part | (table["split"] != "test")])
    found = house.evaluate()
    (pair,) = found["comparisons"]
    assert pair["n"] == 60
    cases = pd.read_parquet(house.out / "per_case.parquet")
    cases = cases[cases["case_id"] < "c060"]
    values = {}
    for model, one in cases.groupby("model"):
        values[model] = concordance_index_censored(one["event"] == 1, one["time"], one["score"])[0]
    assert pair["difference"] == pytest.approx(values["student"] - values["other"])


def test_the_test_over_folds_uses_the_cases_that_both_models_have(results: Make) -> None:
    house = results("survival")
    table = house.add("student", 0.4)
    other = house.add("other", 0.9)
    part = table["case_id"] < "c060"
    house.write("student", table[part | (table["split"] != "test")])
    house.evaluate()
    pairs = pd.read_parquet(house.out / "comparisons.parquet")
    differences = []
    for k in range(3):
        rows = part & (table["fold"] == k) & (table["split"] == "test")
        values = [
            concordance_index_censored(t["event"][rows] == 1, t["time"][rows], t["risk"][rows])[0]
            for t in (table, other)
        ]
        differences.append(values[0] - values[1])
    found = pairs.loc[pairs["metric"] == "c_index", "fold_difference"].item()
    assert found == pytest.approx(np.mean(differences))


def test_the_test_that_decides_draws_folds(results: Make) -> None:
    """A student that is better in one fold alone: more cases would show it again, another training
    would not."""
    house = results("regression")
    other = house.add("other", 0.6)
    good = other.copy()
    rows = (good["fold"] == 0) & (good["split"] == "test")
    good.loc[rows, "pred_score"] = good.loc[rows, "true_score"]
    house.write("student", good)
    house.evaluate(bootstraps=400)
    pairs = pd.read_parquet(house.out / "comparisons.parquet").set_index("metric")
    row = pairs.loc["rmse"]
    assert row["test"] == "folds and cases"
    assert row["p_cases"] < 0.01 and row["p_value"] > 0.05 and row["verdict"] == "open"
    assert row["low"] <= row["difference"] <= row["high"]


def test_one_split_has_no_test_and_overlapping_ones_that_over_splits(results: Make) -> None:
    house = results("survival")
    path = house.root / "folds" / "task"
    facts = read_json(path / "folds.json")
    first = (path / "fold_0.csv").read_text()
    write_json(path / "folds.json", {**facts, "k": 1, "tests": "incomplete"})
    house.add("student", 0.2)
    house.add("other", 3.0)
    pair = house.evaluate()["comparisons"][0]
    assert (pair["test"], pair["verdict"], pair["p_value"]) == ("cases", "untested", None)
    assert pair["p_cases"] < 0.05 and pair["low"] > 0
    (path / "fold_1.csv").write_text(first)
    write_json(path / "folds.json", {**facts, "tests": "overlapping"})
    house.add("student", 0.2)
    house.add("other", 3.0)
    pair = house.evaluate()["comparisons"][0]
    assert pair["test"] == "over folds" and pair["p_value"] == pair["p_folds"]
    assert (pair["low"] + pair["high"]) / 2 == pytest.approx(pair["difference"])


def test_too_few_resamples_for_the_models_are_said(results: Make) -> None:
    house = _three(results("regression", n=45))
    said = "50 resamples are too few for 3 comparisons"
    found = house.evaluate(bootstraps=50)["problems"]
    assert any(said in p and "bootstraps to 120" in p for p in found)
    assert not any("too few for" in p for p in house.evaluate(bootstraps=120)["problems"])


def test_a_rare_class_leaves_resamples_undefined_and_is_counted(results: Make) -> None:
    subtype = ["a" if i in (3, 33, 47) else "bc"[i % 2] for i in range(60)]
    house = results("classification", n=60, subtype=subtype)
    house.add("student", 0.5)
    house.add("other", 0.9)
    found = house.evaluate(bootstraps=400)
    row = house.metric("student", "auc")
    assert 2 <= row["n_undefined"] <= 60 and np.isfinite(row["low"])
    assert any("undefined in" in problem for problem in found["problems"])
    assert found["comparisons"][0]["n_undefined"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(split="test"), "not of today's folds"),
        (lambda t: t.assign(case_id="x" + t["case_id"]), "not of today's folds"),
        (lambda t: pd.concat([t, t.tail(1)]), "occurs twice"),
        (lambda t: t[t["fold"] != 1], "no predictions of fold 1"),
        (lambda t: t.drop(columns="risk"), "no column risk"),
        (lambda t: t.assign(event=1 - t["event"]), "other labels than cases.parquet"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(
    results: Make, change: Callable[[pd.DataFrame], pd.DataFrame], message: str
) -> None:
    house = results("survival", n=45)
    table = house.add("student", 0.3)
    house.write("student", change(table))
    with pytest.raises(ArtifactError, match=message):
        house.evaluate()


def test_a_student_that_is_not_trained_is_named(results: Make) -> None:
    house = _three(results("survival", n=45))
    with pytest.raises(ConfigError, match="did you mean `student`"):
        house.evaluate(student="studnet")
    house.models.append("average")
    with pytest.raises(ConfigError, match="called `average`"):
        house.evaluate()


def test_folds_that_validate_on_test_label_every_number(results: Make) -> None:
    house = results("survival", n=45)
    path = house.root / "folds" / "task" / "folds.json"
    for fold in read_folds(house.root, "task"):
        rows = [(c, "train") for c in fold.train + fold.val]
        rows += [(c, part) for part in ("val", "test") for c in fold.test]
        pd.DataFrame(rows, columns=["case_id", "split"]).to_csv(
            path.parent / f"fold_{fold.index}.csv", index=False
        )
    write_json(path, {**read_json(path), "labelled": "validation"})
    found = _three(house).evaluate()
    assert found["labelled"] == "validation" and "not a test result" in found["note"]
    for name in ("metrics", "comparisons"):
        assert set(pd.read_csv(house.out / f"{name}.csv")["labelled"]) == {"validation"}


def test_overlapping_test_parts_are_averaged_and_said(results: Make) -> None:
    house = results("survival", n=45)
    first = read_folds(house.root, "task")[0]
    path = house.root / "folds" / "task"
    text = (path / "fold_0.csv").read_text()
    (path / "fold_1.csv").write_text(text)
    write_json(path / "folds.json", {**read_json(path / "folds.json"), "tests": "overlapping"})
    house.add("student", 0.3)
    found = house.evaluate()
    cases = pd.read_parquet(house.out / "per_case.parquet").set_index("case_id")
    assert set(cases.loc[list(first.test), "n_predictions"]) == {2}
    assert any("overlap" in problem for problem in found["problems"])


# --- survival curves ------------------------------------------------------------------------------


def test_discrete_time_models_get_a_brier_score_up_to_their_last_edge(results: Make) -> None:
    task = SurvivalTask(type="survival", time="time", event="event", loss="nll")
    house = results("survival", task=task)
    edges = [4.0, 10.0, 18.0]
    for model, noise in (("student", 0.3), ("single_a", 4.0)):
        table = house.add(model, noise, meta={"head": {"bin_edges": edges}})
        for j, edge in enumerate(edges):
            table[f"surv_{j + 1}"] = np.exp(-edge / 20 * np.exp(table["risk"].clip(-3, 3)))
        house.write(model, table)
    house.evaluate()
    student, other = (house.metric(m, "integrated_brier") for m in ("student", "single_a"))
    assert student["value"] < other["value"] and not student["higher_is_better"]
    points = read_json(house.out / "curves.json")["calibration"]["student"]
    assert len(points) >= 1
    for one in points.values():
        assert sum(one["n"]) == 90 and one["predicted"] == sorted(one["predicted"])
    house.add("single_b", 1.0, meta={"head": {}})  # a model without curves has no Brier score
    house.evaluate()
    assert np.isnan(house.metric("single_b", "integrated_brier")["value"])


def test_the_oracle_is_taken_from_the_embedded_cohort(results: Make) -> None:
    house = results("classification", n=60)
    write_cohort_facts(house.root, cohort_facts(oracle={"task": {"auc": 0.9, "f1": 0.8}}))
    found = _three(house).evaluate()
    assert found["oracle"] == 0.9 and found["oracle_metrics"]["f1"] == 0.8


def test_ordered_classes_have_a_quadratic_kappa(results: Make) -> None:
    task = ClassificationTask(type="classification", label="subtype", classes=["a", "b", "c"])
    house = _three(results("classification", task=task, n=60))
    house.evaluate()
    assert house.metric("student", "qwk")["value"] > house.metric("single_poor", "qwk")["value"]
    curves = read_json(house.out / "curves.json")
    assert set(curves["roc"]["student"]) == {"a", "b", "c"}
    assert np.sum(curves["confusion"]["student"]["counts"]) == 60
    comparisons = pd.read_parquet(house.out / "comparisons.parquet")
    assert comparisons.loc[comparisons["metric"] == "auc", "p_delong"].notna().all()
    assert comparisons.loc[comparisons["metric"] == "f1", "p_delong"].isna().all()


def test_words_stand_beside_the_models(results: Make) -> None:
    """With intervals and a paired difference, and without a part in the average of teachers."""
    made = results("classification")
    made.add("student", 0.2)
    made.add("single_a", 0.8)
    made.add("single_b", 0.8)
    made.add("zero_shot_a", 1.5)
    found = made.evaluate(zero_shot=("zero_shot_a",))
    rows = {row["model"]: row for row in found["models"]}
    assert rows["zero_shot_a"]["low"] < rows["zero_shot_a"]["value"] < rows["student"]["value"]
    against = {row["other"]: row for row in found["comparisons"]}
    assert (
        against["zero_shot_a"]["difference"] > 0 and against["zero_shot_a"]["p_value"] is not None
    )
    assert found["average_of"] == ["single_a", "single_b"]
    assert found["best_single"]["on_test"]["model"].startswith("single_")
