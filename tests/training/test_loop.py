"""The loop's optimiser and the epoch that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from pipeline.bags.store import Store, open_store
from pipeline.config.models import ModelConfig
from pipeline.config.tasks import RegressionTask
from pipeline.config.training import TrainingConfig
from pipeline.contracts.case_map import read_case_map
from pipeline.contracts.labels import read_labels
from pipeline.files.parquet import read_columns
from pipeline.training.job import TrainingJob, prepare
from pipeline.training.loop import Trial, adamw, train
from pipeline.training.predict import Batches, outputs

MODEL = {"kind": "single", "teacher": "deep", "aggregator": "mean_pool", "dropout": 0.0}


def test_only_matrices_decay() -> None:
    layer = nn.Linear(3, 2)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimiser = adamw(list(layer.parameters()), TrainingConfig(weight_decay=0.5))
    optimiser.step(0.1)  # gradients start as zeros
    torch.testing.assert_close(layer.weight.detach(), weight * (1 - 0.1 * 0.5))
    assert torch.equal(layer.bias, bias)


def trial(root: Path, **cfg: Any) -> tuple[Trial, Store]:
    task = RegressionTask(type="regression", targets=["score"])
    labels = read_labels(read_columns(root / "cases.parquet"), "score", task)
    store = open_store(
        read_case_map(root), root, ["deep"], ["high"], labels.cases, torch.device("cpu")
    )
    settings = TrainingConfig(batch_size=4, learning_rate=0.05, **cfg)
    model = TypeAdapter(ModelConfig).validate_python(MODEL)
    job = TrainingJob(
        settings, "m", model, task, store, labels, "", {}, np.arange(len(labels.cases))
    )
    parts = {"train": np.arange(0, 16), "val": np.arange(16, 24)}
    ready = prepare(job, settings, model, parts["train"], 3)
    y = ready.y.copy()
    y[16:] = y[16:].mean() + y[0]  # what is learned soon fits the validation part less well
    return Trial(ready.network, ready.head, y, parts, settings, 3), store


def test_the_network_holds_the_weights_of_its_best_epoch(root: Path) -> None:
    one, store = trial(root, epochs=30, patience=4)
    fitted = train(one, store)
    losses = [row["val_loss"] for row in fitted.history]
    assert fitted.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == min(30, fitted.best_epoch + 4) > fitted.best_epoch
    again, _ = trial(root, epochs=30, patience=4)
    exact = train(again, store, fitted.best_epoch)
    said = outputs(one.network, Batches(store, one.parts["val"], None))
    kept = np.stack([said[case] for case in one.parts["val"].tolist()])
    np.testing.assert_array_equal(kept, exact.validated[-1])


def test_a_fixed_length_keeps_the_last_epoch_and_needs_no_validation(root: Path) -> None:
    one, store = trial(root, epochs=5)
    alone = Trial(
        one.network, one.head, one.y, {**one.parts, "val": np.arange(0)}, one.cfg, one.seed
    )
    seen: list[float] = []
    fitted = train(alone, store, 3, lambda row: seen.append(row["epoch"]))
    assert fitted.best_epoch == 3 and seen == [1, 2, 3]
    assert not len(fitted.validated) and np.isnan(fitted.history[0]["val_loss"])
    assert (
        fitted.history[2]["learning_rate"]
        < fitted.history[0]["learning_rate"]
        == pytest.approx(one.cfg.learning_rate)
    )
