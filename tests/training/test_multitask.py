"""Auxiliary endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.config.models import ModelConfig
from pipeline.config.tasks import TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.labels import read_labels
from pipeline.training import stage
from pipeline.training.checkpoint import load_checkpoint
from pipeline.training.multitask import AuxiliaryTask, MultiHead, align
from pipeline.training.tasks import fit_head, from_facts

TASKS: dict[str, dict[str, Any]] = {
    "time": {"type": "survival", "time": "time", "event": "event", "loss": "nll"},
    "kind": {"type": "classification", "label": "kind"},
    "score": {"type": "regression", "targets": ["score"]},
    "cox": {"type": "survival", "time": "time", "event": "event", "loss": "cox"},
}
ABMIL = {"kind": "single", "teacher": "deep", "d_model": 8}


def task(name: str, **auxiliary: float) -> Any:
    return TypeAdapter(TaskConfig).validate_python({**TASKS[name], "auxiliary": auxiliary})


def train(
    root: Path, model: dict[str, Any], versions: str = "", refit: bool = True, **auxiliary: float
) -> pd.DataFrame:
    stage.run(
        cfg=TrainingConfig(epochs=3, batch_size=6, refit=refit),
        model_name="model",
        model=TypeAdapter(ModelConfig).validate_python(model),
        task_name="time",
        task=task("time", **auxiliary),
        root=root,
        versions=versions,
        workers=1,
        device="cpu",
        auxiliary={name: task(name) for name in auxiliary},
    )
    return pd.read_parquet(root / "models/time/model/predictions.parquet")


def head(root: Path, known: slice, **weights: float) -> tuple[MultiHead, Any]:
    table = pd.read_parquet(root / "cases.parquet")
    own = read_labels(table, "time", task("time"))
    auxiliary = []
    for name, weight in weights.items():
        some = read_labels(table.iloc[known], name, task(name))
        auxiliary.append(AuxiliaryTask(name, task(name), weight, *align(some, own.cases)))
    made = fit_head(task("time"), own, np.arange(16), auxiliary)
    assert isinstance(made, MultiHead)
    return made, own


def test_the_loss_is_the_weighted_sum_over_the_cases_that_have_each_label(root: Path) -> None:
    made, own = head(root, slice(0, 20), kind=0.3, score=2.0)
    y = torch.from_numpy(made.targets(own))
    assert torch.isnan(y[20:, made.width :]).all()
    torch.manual_seed(0)
    out = torch.randn(len(y), made.outputs, requires_grad=True)
    kind, score = made.auxiliary
    first, second = made.main.outputs, made.main.outputs + 3
    expected = (
        made.main.loss(out[:, :first], y[:, : made.width])
        + 0.3 * kind.head.loss(out[:20, first:second], y[:20, made.width : made.width + 1])
        + 2.0 * score.head.loss(out[:20, second:], y[:20, made.width + 1 :])
    )
    loss = made.loss(out, y)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert out.grad is not None
    assert torch.isfinite(out.grad).all()
    assert (out.grad[20:, first:] == 0).all()


def test_a_batch_that_says_nothing_of_another_endpoint_is_no_error(root: Path) -> None:
    made, own = head(root, slice(0, 20), cox=1.0)
    y = torch.from_numpy(made.targets(own))
    out = torch.randn(len(y), made.outputs)
    censored = (y[:, made.width + 1] == 0).nonzero()[:2, 0]
    unknown = torch.tensor([21, 22])
    for rows in (unknown, censored):
        torch.testing.assert_close(
            made.loss(out[rows], y[rows]), made.main.loss(*made.own(out[rows], y[rows]))
        )


def test_what_is_measured_is_the_own_endpoint_and_the_head_can_be_rebuilt(root: Path) -> None:
    made, own = head(root, slice(0, 24), kind=0.5)
    y = made.targets(own)
    out = np.random.default_rng(0).normal(size=(24, made.outputs)).astype(np.float32)
    again = from_facts(made.facts())
    for one in (made, again):
        assert one.metric(out, y) == made.main.metric(*made.own(out, y))
        assert set(one.columns(out, y)) == set(made.main.columns(*made.own(out, y)))
        assert one.outputs == made.main.outputs + 3
    assert made.facts()["kind"] == "nll"


V2 = {"kind": "shazam_v2", "d_model": 8, "layers": 1}


@pytest.mark.parametrize(("model", "refit"), [(ABMIL, True), (V2, True), (V2, False)])
def test_other_endpoints_change_the_trunk_by_training_labels_alone(
    root: Path, model: dict[str, Any], refit: bool
) -> None:
    alone = train(root, model, refit=refit)
    first = train(root, model, refit=refit, kind=1.0)
    assert list(first.columns) == list(alone.columns)
    assert not np.allclose(first.risk, alone.risk)
    folder = root / "models/time/model/fold_0/seed_0"
    before, _, meta = load_checkpoint(folder)
    assert [other["name"] for other in meta.head["auxiliary"]] == ["kind"]
    table = pd.read_parquet(root / "cases.parquet")
    splits = pd.read_csv(root / "folds/time/fold_0.csv").set_index("case_id").split
    held_out = table.case_id.map(splits).isin(["test"] if refit else ["val", "test"])
    table.loc[held_out, "kind"] = table.loc[held_out, "kind"].map({"x": "y", "y": "z", "z": "x"})
    table.to_parquet(root / "cases.parquet")
    train(root, model, refit=refit, kind=1.0)
    after, _, _ = load_checkpoint(folder)
    for (name, a), b in zip(before.state_dict().items(), after.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
