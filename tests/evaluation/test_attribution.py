"""What the student's lead is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from pipeline.config.controls import Controls
from pipeline.evaluation import stage
from tests.evaluation.conftest import NAME, Results

CONTROLS = Controls(
    alone={"a": "student_a", "b": "student_b"},
    plain={"plain_a": "a", "plain_b": "b", "other_a": "a"},
    simple=("plain_a", "plain_b", "other_a", "both"),
    without_distillation="undistilled",
)
NOISE = {
    "student": 0.3, "student_a": 0.6, "student_b": 0.9, "undistilled": 0.35,
    "plain_a": 1.0, "plain_b": 1.2, "other_a": 1.5, "both": 0.7,
}  # fmt: skip


def attributed(house: Results, controls: Controls | None = CONTROLS) -> pd.DataFrame:
    house.evaluate()
    stage.run(
        cfg=stage.EvaluationConfig(student="student", bootstraps=60),
        task_name=NAME,
        task=house.task,
        models=house.models,
        root=house.root,
        controls=controls,
    )
    return pd.read_csv(house.out / "attribution.csv").set_index("part")


@pytest.fixture
def house(results: Callable[..., Any]) -> Results:
    made: Results = results("regression")
    for model, noise in NOISE.items():
        made.add(model, noise)
    return made


def test_the_parts_add_up_and_name_their_models(house: Results) -> None:
    found = attributed(house)
    pairs = dict(zip(found.index, zip(found["model"], found["other"], strict=True), strict=True))
    assert pairs == {
        "whole": ("student", "plain_a"),
        "learner": ("student_a", "plain_a"),
        "teachers": ("student", "student_a"),
        "distillation": ("student", "undistilled"),
        "simple": ("student", "both"),
    }
    assert set(found["teacher"]) == {"a"}
    difference = found["difference"]
    assert difference["whole"] == pytest.approx(difference["learner"] + difference["teachers"])
    assert (found["low"] <= difference).all() and (difference <= found["high"]).all()
    assert (found["p_holm"] >= found["p_value"]).all()
    value = {model: house.metric(model, "r2")["value"] for model in NOISE}
    assert difference["teachers"] == pytest.approx(value["student"] - value["student_a"])


def test_the_teacher_is_chosen_on_validation_whatever_its_test_says(house: Results) -> None:
    table = pd.read_parquet(house.folder("student_b") / "predictions.parquet")
    validated = table["split"] == "val"
    table.loc[validated, "pred_score"] = table.loc[validated, "true_score"]
    house.write("student_b", table)
    found = attributed(house)
    assert set(found["teacher"]) == {"b"}
    assert found.loc["learner", ["model", "other"]].tolist() == ["student_b", "plain_b"]
    assert house.metric("student_b", "r2")["value"] < house.metric("student_a", "r2")["value"]


def test_without_controls_there_is_no_attribution_and_an_older_one_goes(house: Results) -> None:
    attributed(house)
    house.evaluate()
    assert not (house.out / "attribution.csv").exists()
    assert not (house.out / "attribution.parquet").exists()


def test_what_has_no_control_is_left_out(house: Results) -> None:
    found = attributed(house, Controls(alone=CONTROLS.alone))
    assert list(found.index) == ["teachers"]
