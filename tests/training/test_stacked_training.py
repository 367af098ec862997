"""Trainings that are stacked give what the loop gives one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.bags.store import Store, open_store
from pipeline.config.models import ModelConfig
from pipeline.config.tasks import TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.case_map import read_case_map
from pipeline.contracts.labels import read_labels
from pipeline.files.parquet import read_columns
from pipeline.training.job import TrainingJob, prepare
from pipeline.training.loop import Trial, train
from pipeline.training.stacked_training import alike, pays, train_together

SURVIVAL = {"type": "survival", "time": "time", "event": "event"}
TASKS: dict[str, dict[str, Any]] = {
    "cox": {**SURVIVAL, "loss": "cox"},
    "nll": {**SURVIVAL, "loss": "nll"},
    "kind": {"type": "classification", "label": "kind"},
    "score": {"type": "regression", "targets": ["score"]},
}
SETTINGS = [(1e-2, 0.0), (1e-3, 0.1)]
EPOCHS = 4


def trials(
    root: Path, task: str, model: dict[str, Any], tiles: int | None
) -> tuple[list[Trial], Store]:
    """Two settings on three splits of different sizes; the teacher lacks two cases."""
    spec = TypeAdapter(TaskConfig).validate_python(TASKS[task])
    labels = read_labels(read_columns(root / "cases.parquet"), task, spec)
    mapping = read_case_map(root)
    teachers = ["deep", "flat"] if model["kind"] == "mean" else [model["teacher"]]
    store = open_store(mapping, root, teachers, ["high"], list(labels.cases), torch.device("cpu"))
    made = TypeAdapter(ModelConfig).validate_python({"dropout": 0.0, **model})
    job = TrainingJob(
        TrainingConfig(), "m", made, spec, store, labels, "", {}, np.arange(len(labels.cases))
    )
    found = []
    for split in range(3):
        val = np.arange(split, 24, 4)[: 4 + split]
        rows = {"train": np.setdiff1d(np.arange(24), val)[split:], "val": val}
        for rate, decay in SETTINGS:
            cfg = TrainingConfig(
                epochs=EPOCHS,
                batch_size=5,
                learning_rate=rate,
                weight_decay=decay,
                tiles_per_step=tiles,
            )
            ready = prepare(job, cfg, made, rows["train"], 7 + split)
            found.append(Trial(ready.network, ready.head, ready.y, rows, cfg, 7 + split))
    return found, store


CASES: list[tuple[str, dict[str, Any], int | None]] = [
    ("cox", {"kind": "single", "teacher": "deep", "aggregator": "mean_pool"}, None),
    ("cox", {"kind": "single", "teacher": "deep", "aggregator": "mean_pool"}, 2),
    ("kind", {"kind": "single", "teacher": "deep", "aggregator": "max_pool"}, 3),
    ("nll", {"kind": "mean", "aggregator": "mean_pool"}, None),
    ("score", {"kind": "single", "teacher": "deep", "aggregator": "abmil", "d_model": 8}, None),
    ("kind", {"kind": "mean", "aggregator": "gated_abmil", "d_model": 8}, 3),
    ("score", {"kind": "single", "teacher": "deep", "aggregator": "chowder", "d_model": 8}, 4),
]


@pytest.mark.parametrize(("task", "model", "tiles"), CASES)
def test_together_and_one_by_one_give_the_same(
    root: Path, task: str, model: dict[str, Any], tiles: int | None
) -> None:
    found, store = trials(root, task, model, tiles)
    assert len({alike(trial) for trial in found}) == 1
    together = train_together(found, store, EPOCHS - 1)
    for trial, stacked in zip(found, together, strict=True):
        alone = train(trial, store, EPOCHS - 1)
        outs = [fitted.validated for fitted in (stacked, alone)]
        if task == "cox":  # which knows no constant: its bias follows rounding
            outs = [out - out.mean(1, keepdims=True) for out in outs]
        np.testing.assert_allclose(*outs, atol=2e-5, rtol=1e-4)
        for one, other in zip(stacked.history, alone.history, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-5, nan_ok=True)
    spread = np.std([fitted.validated[-1].std() for fitted in together])
    assert spread > 0  # the settings do differ


def test_it_pays_for_what_is_pooled_once(root: Path) -> None:
    pooled, store = trials(root, "cox", CASES[0][1], None)
    assert pays(pooled, store)
    assert not pays(pooled[:1], store)
    attended, store = trials(root, "score", CASES[4][1], None)
    assert not pays(attended, store)  # on a CPU
