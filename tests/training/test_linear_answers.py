"""Networks that learn from a linear model's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from pipeline.bags.store import open_store
from pipeline.config.models import ModelConfig
from pipeline.config.tasks import SurvivalTask, TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.case_map import read_case_map
from pipeline.contracts.labels import read_labels
from pipeline.files.parquet import read_columns
from pipeline.training.job import Prepared, TrainingJob, prepare
from pipeline.training.linear_answers import answers_loss
from pipeline.training.loop import train
from pipeline.training.predict import predict
from pipeline.training.tasks import fit_head

TASKS: dict[str, dict[str, Any]] = {
    "survival": {"type": "survival", "time": "time", "event": "event", "unit": "months"},
    "kind": {"type": "classification", "label": "kind"},
    "score": {"type": "regression", "targets": ["score"]},
}
TRAIN = np.arange(0, 20)


def job_of(root: Path, name: str, **distillation: Any) -> TrainingJob:
    task = TypeAdapter(TaskConfig).validate_python(TASKS[name])
    labels = read_labels(read_columns(root / "cases.parquet"), name, task)
    store = open_store(
        read_case_map(root), root, ["deep"], ["high"], labels.cases, torch.device("cpu")
    )
    model = TypeAdapter(ModelConfig).validate_python(
        {"kind": "shazam_v1", "d_model": 8, "distillation": distillation}
    )
    settings = TrainingConfig(batch_size=8, epochs=40, learning_rate=0.01)
    return TrainingJob(
        settings, "m", model, task, store, labels, "", {}, np.arange(len(labels.cases))
    )


def prepared(job: TrainingJob) -> Prepared:
    return prepare(job, job.cfg, job.model, TRAIN, 3)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_answers_are_of_training_cases_alone(root: Path, name: str) -> None:
    job = job_of(root, name)
    answers = prepared(job).answers
    assert answers is not None and answers.share == 0.8
    others = np.setdiff1d(np.arange(len(job.labels.cases)), TRAIN)
    assert np.isfinite(answers.said[TRAIN]).all()
    assert np.isnan(answers.said[others]).all()
    linear = TypeAdapter(ModelConfig).validate_python({"kind": "linear"})
    if not isinstance(job.task, SurvivalTask):
        taught = prepare(job, job.cfg, linear, TRAIN, 3)
        said = predict(taught.network, job.store, TRAIN, job.cfg.max_tiles_per_case)
        np.testing.assert_array_equal(answers.said[TRAIN], said)


def test_without_a_share_there_are_none(root: Path) -> None:
    assert prepared(job_of(root, "score", linear=0.0)).answers is None


def test_a_student_that_has_only_answers_comes_near_them(root: Path) -> None:
    """Its labels could be anything: it does not look at them."""
    job = job_of(root, "score", linear=1.0, weight=0.0)
    ready = prepared(job)
    assert ready.answers is not None
    ready.y[TRAIN] = 7.0
    before = predict(ready.network, job.store, TRAIN, None)
    train(ready.trial({"train": TRAIN, "val": TRAIN[:0]}, job.cfg, 3), job.store, 40)
    after = predict(ready.network, job.store, TRAIN, None)
    said = ready.answers.said[TRAIN]
    assert ((after - said) ** 2).mean() < 0.5 * ((before - said) ** 2).mean()


def test_losses_are_those_of_the_definition(root: Path) -> None:
    rng = np.random.default_rng(0)
    out, said = (torch.from_numpy(rng.normal(size=(6, 2)).astype(np.float32)) for _ in range(2))
    heads = {}
    for name in TASKS:
        job = job_of(root, name)
        heads[name] = fit_head(job.task, job.labels, TRAIN)
    soft = answers_loss(heads["kind"], out, said)
    expected = -(said.softmax(1) * F.log_softmax(out, 1)).sum(1).mean()
    torch.testing.assert_close(soft, expected)
    squared = answers_loss(heads["score"], out[:, :1], said[:, :1])
    torch.testing.assert_close(squared, ((out - said)[:, 0] ** 2).mean())
    hazards = torch.from_numpy(rng.normal(size=(6, heads["survival"].outputs)).astype(np.float32))
    risk = heads["survival"].lead(hazards)
    correlation = torch.corrcoef(torch.stack([risk, said[:, 0]]))[0, 1]
    survival = answers_loss(heads["survival"], hazards, said[:, :1])
    torch.testing.assert_close(survival, 1 - correlation, atol=1e-4, rtol=1e-4)


def test_a_case_alone_in_its_batch_has_a_loss_without_survival_ranks(root: Path) -> None:
    job = job_of(root, "survival")
    head = fit_head(job.task, job.labels, TRAIN)
    out = torch.zeros(1, head.outputs, requires_grad=True)
    loss = answers_loss(head, out, torch.ones(1, 1))
    loss.backward()
    assert torch.isfinite(loss) and out.grad is not None and torch.isfinite(out.grad).all()
