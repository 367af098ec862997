"""Networks that learn from plain models' answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from pipeline.bags.store import open_store
from pipeline.config.models import ModelConfig
from pipeline.config.tasks import TaskConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.case_map import read_case_map
from pipeline.contracts.labels import read_labels
from pipeline.files.parquet import read_columns
from pipeline.training.job import Prepared, TrainingJob, prepare
from pipeline.training.loop import train
from pipeline.training.plain_answers import WORTH, answers_loss, blended, remaining
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


@pytest.mark.parametrize("name", sorted(TASKS))
def test_answers_do_not_depend_on_other_cases(root: Path, name: str) -> None:
    """Neither labels nor features of validation and test cases are looked at."""
    job = job_of(root, name)
    before = prepared(job).answers
    others = np.setdiff1d(np.arange(len(job.labels.cases)), TRAIN)
    shuffled = np.arange(len(job.labels.cases))
    shuffled[others] = others[::-1]
    after = prepared(dataclasses.replace(job, labels=job.labels.take(shuffled))).answers
    assert before is not None and after is not None
    np.testing.assert_array_equal(before.said, after.said)


def test_both_answers_count_the_same() -> None:
    linear, forest = np.log([[0.9, 0.1], [0.5, 0.5]]), np.log([[0.3, 0.7], [0.5, 0.5]])
    probabilities = np.exp(blended(linear, forest, "classification"))
    np.testing.assert_allclose(probabilities, [[0.6, 0.4], [0.5, 0.5]], rtol=1e-6)
    numbers = blended(np.array([[1.0], [2.0]]), np.array([[3.0], [2.0]]), "regression")
    np.testing.assert_array_equal(numbers, [[2.0], [2.0]])
    # The scale of a risk says nothing: neither answer is louder than the other.
    low, high = np.array([[0.0], [1.0], [2.0]]), np.array([[900.0], [0.0], [-900.0]])
    np.testing.assert_allclose(blended(low, high, "survival"), 0, atol=1e-6)
    np.testing.assert_array_equal(blended(linear, None, "classification"), linear.astype("f4"))


def test_without_a_share_there_are_none(root: Path) -> None:
    assert prepared(job_of(root, "score", plain=0.0)).answers is None


def learned(root: Path, label: float, epochs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs before and after some epochs of 40 with answers alone at first, and the answers."""
    job = job_of(root, "score", plain=1.0, weight=0.0)
    ready = prepared(job)
    assert ready.answers is not None
    ready.y[TRAIN] = label
    before = predict(ready.network, job.store, TRAIN, None)
    train(ready.trial({"train": TRAIN, "val": TRAIN[:0]}, job.cfg, 3), job.store, epochs)
    return before, predict(ready.network, job.store, TRAIN, None), ready.answers.said[TRAIN]


def test_answers_come_first_and_labels_after_them(root: Path) -> None:
    """In the first epoch labels could be anything."""
    _, with_sevens, _ = learned(root, 7.0, epochs=1)
    _, with_zeros, _ = learned(root, 0.0, epochs=1)
    np.testing.assert_array_equal(with_sevens, with_zeros)
    before, after, said = learned(root, 0.0, epochs=5)
    assert ((after - said) ** 2).mean() < ((before - said) ** 2).mean()


def test_answers_count_less_the_more_labels_were_seen() -> None:
    assert remaining(1, 500) == 1.0
    assert remaining(1 + WORTH // 500, 500) == 0.5
    assert remaining(20, 60) > 0.8 and remaining(20, 5000) < 0.1


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
