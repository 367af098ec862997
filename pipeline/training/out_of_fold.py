"""What a model says of training cases which it has not learned from: what stacking weighs it by.

A fold's training cases are dealt into inner parts; on all but one of these the model is trained
again, for as many epochs and with the settings that its own training of that fold kept, and
predicts the one. With nested cross-validation the parts are those that chose its settings, and hold
the validation cases, too. Test cases take no part.

Writes `models/<task>/<model>/out_of_fold.parquet`, and `fold_<k>/seed_<s>/out_of_fold.parquet`,
which is not made again where `out_of_fold.json` beside it says that it is what would be made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.config.models import ModelConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.folds import Fold
from pipeline.contracts.labels import Task
from pipeline.contracts.model_meta import ModelMeta, read_meta
from pipeline.contracts.stacking import OutOfFold, read_out_of_fold, write_out_of_fold
from pipeline.errors import UserError
from pipeline.files.artifacts import sweep
from pipeline.files.digests import digest
from pipeline.files.parquet import Columns, stack_columns, write_columns
from pipeline.linear.estimators import parts
from pipeline.runtime import progress
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.training.job import TrainingJob, device_of, prepare, seed_of
from pipeline.training.loop import train
from pipeline.training.opening import in_fold, open_job, with_features
from pipeline.training.predict import predict

# Raised when these predictions change. 1: the first.
VERSION = 1

FILE = "out_of_fold.parquet"


def run(
    *,
    cfg: TrainingConfig,
    model_name: str,
    model: ModelConfig,
    task_name: str,
    task: Task,
    root: Path,
    versions: str,
    workers: int,
    device: str,
    auxiliary: Mapping[str, Task] | None = None,
    made: Mapping[str, str] | None = None,
) -> None:
    """Predict the training cases of every fold and seed by models that have not seen them.

    Args:
        cfg, model_name, model, task_name, task, root, workers, device, auxiliary, made: as of the
            training, which is done.
        versions: of the code that this is made with.

    Raises:
        UserError: the training part is too small to be dealt into parts.
        ArtifactError: a training is missing.
    """
    place = device_of(device)
    torch.set_num_threads(cpu_budget(max(1, workers)) if place.type == "cuda" else 1)
    job, folds = open_job(
        cfg=cfg,
        model_name=model_name,
        model=model,
        task_name=task_name,
        task=task,
        root=root,
        versions=versions,
        place=place,
        auxiliary=auxiliary or {},
        made=made or {},
    )
    folder = root / "models" / task_name / model_name
    work = [(fold, seed) for fold in folds for seed in cfg.seeds]
    tables = []
    for fold, seed in progress.counted(work, "models"):
        own = folder / f"fold_{fold.index}" / f"seed_{seed}"
        sweep(own)
        tables.append(_fold(in_fold(job, root, made or {}, fold), fold, seed, own))
    write_columns(folder / FILE, stack_columns(tables))


def _fold(job: TrainingJob, fold: Fold, seed: int, folder: Path) -> Columns:
    """A row a training case: seed, fold, part, case_id, the columns of the model's predictions, and
    for a risk its mean and deviation over the cases that its training had (risk_mean,
    risk_deviation)."""
    meta = read_meta(folder)
    fingerprint = digest(meta.fingerprint, job.versions)
    done = read_out_of_fold(folder)
    if done is not None and done[0].fingerprint == fingerprint:
        return done[1]
    started = time.perf_counter()
    tables = []
    dealt = _dealt(job, fold, seed)
    learned = with_features([job.store.cases[row] for row in np.concatenate(dealt)], job)
    for part, held_out in enumerate(dealt):
        rest = np.sort(np.setdiff1d(learned, held_out))
        asked = held_out[np.isin(held_out, learned)]
        if len(asked):
            out = _said(job, meta, rest, asked, seed_of(seed, fold.index, job.model_name, part))
            keys = {"seed": seed, "fold": fold.index, "part": part}
            ids = np.array([job.store.cases[row] for row in asked], dtype=object)
            tables.append({**{k: np.full(len(asked), v) for k, v in keys.items()},
                           "case_id": ids, **out})  # fmt: skip
    table = stack_columns(tables)
    seconds = round(time.perf_counter() - started, 3)
    write_out_of_fold(folder, OutOfFold(fingerprint, seconds), table)
    return table


def _dealt(job: TrainingJob, fold: Fold, seed: int) -> list[np.ndarray]:
    """Case numbers of each inner part, the same for every model of the task.

    Raises:
        UserError: the training part cannot be dealt.
    """
    place = {case: i for i, case in enumerate(job.store.cases)}
    if job.cfg.nested is not None:
        return [np.array([place[case] for case in part], dtype=np.int64) for part in fold.inner]
    cases = np.array([place[case] for case in fold.train], dtype=np.int64)
    head = job.head(cases)
    strata = head.strata(head.targets(job.labels)[cases])
    dealt = parts(strata, job.groups[cases], seed_of(seed, fold.index, "out of fold"))
    if not dealt:
        raise UserError(
            f"fold {fold.index}: the {len(cases)} training cases cannot be dealt into inner parts "
            "that all have events, or each class, so that no model can be stacked; use fewer folds "
            "(folds.k), or leave ensembles and covariates beside a model out"
        )
    return [cases[rows] for rows in dealt]


def _said(
    job: TrainingJob, meta: ModelMeta, learn: np.ndarray, asked: np.ndarray, draw: int
) -> dict[str, np.ndarray]:
    """What the model says of the cases `asked` after learning from the cases `learn`."""
    cfg, model = job.cfg, job.model
    if meta.nested is not None:
        cfg, model = cfg.at(meta.nested.chosen, model)
    ready = prepare(job, cfg, model, learn, draw)
    trial = ready.trial({"train": learn, "val": learn[:0]}, cfg, draw)
    train(trial, job.store, meta.best_epoch)
    out = predict(
        ready.network, job.store, np.concatenate([learn, asked]), cfg.max_tiles_per_case,
        cfg.precision,
    )  # fmt: skip
    columns = ready.head.columns(out[len(learn) :], ready.y[asked])
    if "risk" not in columns:
        return columns
    risk = ready.head.score(out[: len(learn)])
    ends = {"risk_mean": risk.mean(), "risk_deviation": risk.std()}
    return columns | {name: np.full(len(asked), value) for name, value in ends.items()}
