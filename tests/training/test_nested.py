"""Nested cross-validation: nothing of the test part, no training twice, the chosen epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from pipeline.config.models import ModelConfig
from pipeline.config.tasks import TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.model_meta import GridPoint
from pipeline.errors import ArtifactError
from pipeline.training import nested, stage
from pipeline.training.nested import CURVES, choose, standings

GRID = {"learning_rate": [1e-2, 1e-4], "weight_decay": [0, 1e-2]}
TASKS: dict[str, dict[str, Any]] = {
    "time": {"type": "survival", "time": "time", "event": "event", "loss": "cox"},
    "kind": {"type": "classification", "label": "kind"},
    "score": {"type": "regression", "targets": ["score"]},
}
POOL = {"kind": "single", "teacher": "deep", "aggregator": "mean_pool"}
ABMIL = {"kind": "single", "teacher": "deep", "aggregator": "abmil", "d_model": 8}
V2 = {"kind": "shazam_v2", "levels": ["high"], "layers": 1, "d_model": 8}


def train(
    root: Path, model: dict[str, Any], task: str = "time", grid: Any = GRID, **cfg: Any
) -> pd.DataFrame:
    settings = {"epochs": 3, "batch_size": 6, "nested": {"grid": grid}, **cfg}
    stage.run(
        cfg=TrainingConfig.model_validate(settings),
        model_name="model",
        model=TypeAdapter(ModelConfig).validate_python(model),
        task_name=task,
        task=TypeAdapter(TaskConfig).validate_python(TASKS[task]),
        root=root,
        versions="code",
        workers=1,
        device="cpu",
    )
    return pd.read_parquet(root / "models" / task / "model" / "predictions.parquet")


def chosen(root: Path, fold: int, task: str = "time") -> dict[str, Any]:
    meta = json.loads((root / f"models/{task}/model/fold_{fold}/seed_0/meta.json").read_text())
    return dict(meta["nested"], best_epoch=meta["best_epoch"])


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_searched_and_trained(root: Path, task: str) -> None:
    table = train(root, POOL, task)
    assert sorted(table[table.split == "test"].case_id) == [f"case{i:02d}" for i in range(24)]
    for fold in range(2):
        facts = chosen(root, fold, task)
        assert facts["trainings"] == 4 * 3 + 1
        assert facts["best_epoch"] == facts["epochs"]
        folder = root / f"models/{task}/model/fold_{fold}/seed_0"
        trials = pd.read_csv(folder / "inner.csv")
        assert len(trials) == 4 * 3 * 3
        means = trials.groupby(["point", "epoch"]).val_metric.mean()
        best = means.loc[means >= means.max() - 1e-9].reset_index()
        points = trials.drop_duplicates("point").set_index("point")
        at = {
            (points.learning_rate[p], points.weight_decay[p]): e
            for p, e in zip(best.point, best.epoch, strict=True)
        }
        key = (facts["chosen"]["learning_rate"], facts["chosen"]["weight_decay"])
        assert key in at
        best_of_each = means.groupby("point").max()
        assert [stood["score"] for stood in facts["grid"]] == pytest.approx(best_of_each.tolist())
        stood = next(one for one in facts["grid"] if one["point"] == facts["chosen"])
        assert (stood["epoch"], stood["score"]) == (facts["epochs"], facts["score"])
        assert not (folder / "inner").exists()


@pytest.mark.parametrize("model", [ABMIL, V2], ids=["abmil", "v2"])
def test_the_outer_test_part_decides_nothing(root: Path, model: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"grid": {"learning_rate": [1e-2, 1e-4]}, "epochs": 2}
    first = train(root, model, **settings)
    trials = root / "models/time/model/fold_0/seed_0/inner.csv"
    before = chosen(root, 0), trials.read_text()
    cases = pd.read_parquet(root / "cases.parquet")
    tested = [f"case{i:02d}" for i in range(0, 24, 2)]
    cases.loc[cases.case_id.isin(tested), "time"] *= 100
    cases.to_parquet(root / "cases.parquet")
    for case in tested:
        for path in (root / "features").glob(f"*/{case}-*.h5"):
            with h5py.File(path, "r+") as file:
                file["features"][...] = file["features"][...] * 5 + 1
    second = train(root, model, **settings)
    assert before == (
        chosen(root, 0),
        (root / "models/time/model/fold_0/seed_0/inner.csv").read_text(),
    )
    learned = [t[(t.fold == 0) & (t.split != "test")].risk for t in (first, second)]
    np.testing.assert_allclose(*learned)


def test_validation_predictions_are_of_models_that_had_not_seen_the_case(root: Path) -> None:
    """With labels that are noise a model agrees with what it saw, and with nothing else."""
    table = pd.read_parquet(root / "cases.parquet")
    table["score"] = np.random.default_rng(5).normal(size=len(table))
    table.to_parquet(root / "cases.parquet")
    grid = {"learning_rate": [3e-2]}
    out = train(root, POOL, "score", grid, epochs=60, weight_decay=0.0, batch_size=20)
    errors = (out.pred_score - out.true_score).abs().groupby(out.split).mean()
    assert errors["val"] > 1.3 * errors["train"]


def test_finished_inner_trainings_are_not_repeated(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(root, ABMIL)
    for file in (root / "models/time/model").rglob("meta.json"):
        file.unlink()
    done: list[int] = []
    original = nested.train

    def counted(*args: Any, **kwargs: Any) -> Any:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(nested, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        train(root, ABMIL)
    done.clear()
    done.extend([1] * -100)
    trained: list[int] = []

    def again(*args: Any, **kwargs: Any) -> Any:
        trained.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(nested, "train", again)
    resumed = train(root, ABMIL)
    assert len(trained) == 2 * 4 * 3 - 5
    pd.testing.assert_frame_equal(whole, resumed)


def test_a_grid_key_of_the_model_and_a_dotted_one(root: Path) -> None:
    grid = {"d_model": [8, 16], "distillation.weight": [0.0], "tiles_per_step": [2]}
    train(root, ABMIL, grid=grid, epochs=1)
    assert chosen(root, 1)["chosen"]["d_model"] in (8, 16)
    meta = json.loads((root / "models/time/model/fold_1/seed_0/meta.json").read_text())
    assert meta["model"]["d_model"] == chosen(root, 1)["chosen"]["d_model"]


def test_folds_without_inner_parts_are_refused(root: Path) -> None:
    path = root / "folds/time/folds.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "inner": None}))
    with pytest.raises(ArtifactError, match=r"folds\.inner"):
        train(root, POOL)


def test_the_epoch_is_counted_from_one_and_undefined_metrics_fall_back_to_the_loss() -> None:
    curves = np.zeros((2, 3, 4, len(CURVES)))
    curves[..., CURVES.index("val_loss")] = 1.0
    metric = curves[..., CURVES.index("val_metric")]
    metric[1, :, 3] = [0.9, 0.5, np.nan]
    assert choose(curves, "metric") == (1, 4, pytest.approx(0.7))
    metric[:] = np.nan
    curves[0, :, 0, CURVES.index("val_loss")] = 0.5
    assert choose(curves, "metric") == (0, 1, 0.5)
    assert choose(curves, "loss") == (0, 1, 0.5)


def test_where_a_point_stood_is_judged_as_the_choice_is() -> None:
    curves = np.zeros((3, 3, 2, len(CURVES)))
    metric = curves[..., CURVES.index("val_metric")]
    metric[0] = [[0.1, 0.5], [0.2, 0.7], [0.3, np.nan]]
    metric[1, :, 0] = 0.9
    metric[2] = np.nan
    points: list[dict[str, Any]] = [{"a": 1}, {"a": 2}, {"a": 3}]
    found = standings(points, curves, "metric")
    assert [one.epoch for one in found] == [2, 1, None]
    assert found[0].score == pytest.approx(0.6)
    assert found[0].deviation == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert choose(curves, "metric")[2] == found[1].score
    curves[1, :, 1, CURVES.index("val_loss")] = -2.0
    assert standings(points, curves, "loss")[1] == GridPoint({"a": 2}, 2, -2.0, 0.0)
