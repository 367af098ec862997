"""What an encoder keeps of its teachers' score, beside the best of them under the same learner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.metrics import Measured
from pipeline.evaluation.retained import retained_table


def _model(name: str, teacher: str, kind: str = "single", **more: Any) -> Any:
    meta = SimpleNamespace(model={"kind": kind, "teacher": teacher, **more}, teachers=[teacher])
    return SimpleNamespace(name=name, meta=meta)


def _measured(name: str, values: list[float]) -> Measured:
    empty = np.zeros(0)
    return Measured(name, empty, {"c_index": np.array(values)}, {}, empty, {})


BENCH: Any = SimpleNamespace(task=SimpleNamespace(type="survival"))
MODELS = [
    _model("single_a", "a"),
    _model("single_b", "b"),
    _model("single_small", "small"),
    _model("linear_a", "a", "linear"),
    _model("linear_small", "small", "linear"),
    _model("gated_small", "small", aggregator="clam"),
    _model("all", "all", "concat"),
]
SCORES = {
    "single_a": [0.7, 0.72, 0.68],
    "single_b": [0.8, 0.78, 0.82],
    "single_small": [0.74, 0.73, 0.75],
    "linear_a": [0.6, 0.6, 0.6],
    "linear_small": [0.66, 0.66, 0.66],
    "gated_small": [0.9, 0.9, 0.9],
    "all": [0.95, 0.95, 0.95],
}


def test_each_model_stands_beside_the_best_teacher_of_its_own_learner() -> None:
    measured = [_measured(name, values) for name, values in SCORES.items()]
    table = retained_table(MODELS, measured, ["small"], BENCH, 0.9)
    assert table is not None
    rows = table.set_index("model")
    assert set(rows.index) == {"single_small", "linear_small"}  # `gated_small` has no rival
    one = rows.loc["single_small"]
    assert one["best"] == "single_b"
    assert one["share"] == pytest.approx(0.74 / 0.8)
    assert one["above_chance"] == pytest.approx(0.24 / 0.3)
    assert one["difference"] == pytest.approx(-0.06)
    # Resamples are paired: 0.73 / 0.78 and 0.75 / 0.82, not the ends of either alone.
    low, high = sorted((0.73 / 0.78, 0.75 / 0.82))
    assert low <= one["share_low"] <= one["share_high"] <= high
    assert rows.loc["linear_small", "share"] == pytest.approx(1.1)


def test_without_a_made_encoder_there_is_no_table() -> None:
    measured = [_measured(name, values) for name, values in SCORES.items()]
    assert retained_table(MODELS, measured, [], BENCH, 0.9) is None


def test_a_teacher_at_chance_leaves_no_share_above_it() -> None:
    measured = [_measured("single_a", [0.4, 0.4, 0.4]), _measured("single_small", [0.6, 0.6, 0.6])]
    table = retained_table(MODELS[:1] + MODELS[2:3], measured, ["small"], BENCH, 0.9)
    assert table is not None
    assert np.isnan(table.loc[0, "above_chance"]) and table.loc[0, "share"] == pytest.approx(1.5)
