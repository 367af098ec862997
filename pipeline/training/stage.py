"""The training stage: one model of one task, every fold and seed, in one process.

The bags are read once and shared by all trainings. Writes `models/<task>/<model>/`:

- `fold_<k>/seed_<s>/`: weights.safetensors, history.csv, predictions.parquet, attention.parquet,
  with nested cross-validation inner.csv (every inner training's epochs), and last meta.json. A
  folder whose meta.json carries the fingerprint of what would be trained now is not trained again.
- `predictions.parquet`: the predictions of all folds and seeds for train, val and test cases.
- `auxiliary/<task>.parquet`: the same for each auxiliary task, for the cases
  that have its label; with nested cross-validation without validation cases, which the final
  models have learned from.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.aggregators.network import Shape, fitted_count, parameter_count
from pipeline.config.models import ModelConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.folds import PARTS, Fold
from pipeline.contracts.labels import Labels, Task
from pipeline.contracts.model_meta import FILE as META
from pipeline.contracts.model_meta import ModelMeta, finished
from pipeline.errors import ArtifactError, UserError
from pipeline.files.artifacts import sweep, write_text
from pipeline.files.digests import digest
from pipeline.files.parquet import Columns, read_columns, stack_columns, write_columns
from pipeline.runtime import progress
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.training.attention import attention_table, extremes
from pipeline.training.checkpoint import save_checkpoint
from pipeline.training.head import Head
from pipeline.training.history import Watch, history_log
from pipeline.training.job import Prepared, TrainingJob, device_of, prepare, seed_of
from pipeline.training.loop import Fitted, told, train
from pipeline.training.multitask import MultiHead
from pipeline.training.nested import chosen, forget, search, unseen_in_place, with_inner
from pipeline.training.opening import in_fold, open_job, with_features
from pipeline.training.predict import predict
from pipeline.training.refit import refitted
from pipeline.training.tasks import cutoffs

# Raised when every model's predictions change (bags, sampling, loop, what networks share).
# 1: the first. 2: models are fitted again with the validation cases (refit).
VERSION = 2

OWN = ""
AUXILIARY = "auxiliary"
NOT_TRAINING = {
    "models",
    "ablations",
    "seeds",
    "tensorboard",
}  # keys of TrainingConfig that no training depends on


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
    """Train one model of one task on every fold and seed, and predict all cases.

    Args:
        cfg: the training section.
        model_name: the model's name: the folder, and part of every seed.
        model: its config, with `teacher: each` expanded.
        task_name: the task's name.
        task: the task.
        root: the results folder.
        versions: of the code that this model is trained with; part of each training's fingerprint.
        workers: CPU threads next to a GPU. Without one training takes a single thread: how many
            there are decides in which order sums are made, and so their last digits.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ….
        auxiliary: the tasks that `task.auxiliary` names.
        made: the encoder made here that the model reads, and the folder of its features; with
            `{fold}` in it each fold reads those of its own encoder, which saw no test case.

    Raises:
        UserError: inputs do not fit together, or a part cannot be learned from.
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
    sweep(folder, *folder.glob("fold_*/seed_*"))
    work = [(fold, seed) for fold in folds for seed in cfg.seeds]
    tables = [
        _fold(
            in_fold(job, root, made or {}, fold),
            fold,
            seed,
            folder / f"fold_{fold.index}" / f"seed_{seed}",
        )
        for fold, seed in progress.counted(work, "models")
    ]
    for name in (one.name for one in job.auxiliary):
        columns = stack_columns([table[name] for table in tables])
        write_columns(folder / AUXILIARY / f"{name}.parquet", columns)
    write_columns(folder / "predictions.parquet", stack_columns([t[OWN] for t in tables]))


def _fold(job: TrainingJob, fold: Fold, seed: int, folder: Path) -> dict[str, Columns]:
    """Train one fold with one seed unless that is done, and return its predictions: those of the
    own endpoint as OWN, those of each auxiliary one by its name."""
    files = {OWN: folder / "predictions.parquet"} | {
        one.name: folder / AUXILIARY / f"{one.name}.parquet" for one in job.auxiliary
    }
    usable: dict[str, np.ndarray] = {part: with_features(fold.part(part), job) for part in PARTS}
    for part in ("train", "val"):
        if not len(usable[part]):
            raise UserError(
                f"fold {fold.index}: no {part} case has features of "
                f"{', '.join(t.name for t in job.store.teachers)}; see coverage.csv"
            )
    if job.cfg.nested and not fold.inner:
        raise ArtifactError(
            f"fold {fold.index} has no inner parts (inner_{fold.index}.csv), which training.nested "
            "needs; run `folds` again with folds.inner"
        )
    inner = [with_features(part, job) for part in fold.inner] if job.cfg.nested else []
    fingerprint = _fingerprint(job, usable, inner, seed)
    done = finished(folder)
    if done is not None and done.fingerprint == fingerprint:
        try:
            return {name: read_columns(path) for name, path in files.items()}
        except ArtifactError as error:
            progress.say(f"{error}; trained again")
    progress.note(f"fold {fold.index}, seed {seed}")
    started = time.perf_counter()
    key = (seed, fold.index, job.model_name)
    with history_log(folder, job.cfg.tensorboard) as watch:
        if job.cfg.nested is None:
            choice = None
            ready = prepare(job, job.cfg, job.model, usable["train"], seed_of(*key))
            learning = {part: usable[part] for part in ("train", "val")}
            fitted = _train(job, job.cfg, ready, learning, seed_of(*key), None, watch)
        else:
            choice = search(job, job.cfg.nested, inner, folder, fingerprint, key)
            learned = np.sort(np.concatenate([usable["train"], usable["val"]]))
            ready = prepare(job, choice.cfg, choice.model, learned, seed_of(*key))
            learning = {"train": learned, "val": learned[:0]}
            fitted = _train(job, choice.cfg, ready, learning, seed_of(*key), choice.epoch, watch)
    cfg, model = (job.cfg, job.model) if choice is None else (choice.cfg, choice.model)
    rows = np.concatenate([usable[part] for part in PARTS])
    splits = np.repeat(np.array(PARTS, dtype=object), [len(usable[part]) for part in PARTS])
    limit = cfg.max_tiles_per_case
    validated = splits == "val"
    # Where validation cases are also tested, on request, nothing may be fitted to them.
    refits = choice is None and cfg.refit and fold.labelled == "test"
    if refits:
        unseen = predict(ready.network, job.store, rows[validated], limit, cfg.precision)
        ready = refitted(job, ready, fitted.best_epoch, learning, seed_of(*key))
    network, head, y = ready.network, ready.head, ready.y
    shape = network.shape
    asked = time.perf_counter()
    out = predict(network, job.store, rows, limit, cfg.precision)
    answered = time.perf_counter()
    if refits:
        out[validated] = unseen
    keys: dict[str, np.ndarray] = {
        "seed": np.full(len(rows), seed, dtype=np.int64),
        "fold": np.full(len(rows), fold.index, dtype=np.int64),
        "split": splits,
        "case_id": np.array([job.store.cases[row] for row in rows], dtype=object),
    }
    columns = {**keys, **head.columns(out, y[rows])}
    if choice is not None:
        unseen_in_place(columns, rows, choice)
    said: dict[str, Columns] = {
        OWN: columns,
        **_said_of_auxiliary(head, out, y[rows], keys, choice is not None),
    }
    tested = usable["test"]
    score = head.score(out[splits == "test"])
    shown = tested[extremes(score, job.cfg.attention_cases_per_fold)]
    table = attention_table(network, head, job.store, shown, limit, job.slides)
    # An earlier training's meta.json must not count for this one's files, should the process be
    # killed between them and its config come back.
    (folder / META).unlink(missing_ok=True)
    write_columns(folder / "attention.parquet", table)
    for name, path in files.items():
        write_columns(path, said[name])
    history = fitted.history if choice is None else with_inner(fitted.history, choice)
    write_text(folder / "history.csv", _csv(history))
    if choice is not None:
        write_text(folder / "inner.csv", _csv(choice.trials))
    meta = ModelMeta(
        fingerprint=fingerprint,
        model_name=job.model_name,
        model=model.model_dump(mode="json"),
        task=job.task.model_dump(mode="json"),
        teachers=list(shape.teachers),
        dims=list(shape.dims),
        outputs=shape.outputs,
        head=head.facts(),
        network=network.facts(),
        levels_absent=_levels_absent(job, shape),
        fold=fold.index,
        seed=seed,
        labelled=fold.labelled,
        cases={part: len(usable[part]) for part in PARTS},
        cases_without_features={part: len(fold.part(part)) - len(usable[part]) for part in PARTS},
        cutoffs=cutoffs(job.task, head, out[splits == "train"]),
        best_epoch=fitted.best_epoch,
        nested=None if choice is None else chosen(job, choice, len(inner)),
        epochs=len(fitted.history),
        n_parameters=parameter_count(network) + fitted_count(network),
        resident=job.store.resident is not None,
        device=str(job.store.device),
        seconds=round(time.perf_counter() - started, 3),
        inference_seconds_per_case=round((answered - asked) / len(rows), 6),
    )
    save_checkpoint(folder, network, meta)
    forget(folder)
    kept = history[fitted.best_epoch - 1]
    progress.say(
        f"fold {fold.index}, seed {seed}: kept epoch {fitted.best_epoch} of {len(history)}, "
        f"{told(kept['train_loss'], kept['val_metric'], head.metric_name)}"
    )
    return said


def _said_of_auxiliary(
    head: Head, out: np.ndarray, y: np.ndarray, keys: dict[str, np.ndarray], nested: bool
) -> dict[str, dict[str, np.ndarray]]:
    """Predictions of the auxiliary endpoints, for the cases that have their label."""
    if not isinstance(head, MultiHead):
        return {}
    found = {}
    for name, (known, columns) in head.auxiliary_columns(out, y).items():
        kept = keys["split"][known] != "val" if nested else np.ones(int(known.sum()), dtype=bool)
        both = {**{key: values[known] for key, values in keys.items()}, **columns}
        found[name] = {key: values[kept] for key, values in both.items()}
    return found


def _train(
    job: TrainingJob,
    cfg: TrainingConfig,
    ready: Prepared,
    learning: dict[str, np.ndarray],
    draw: int,
    length: int | None,
    watch: Watch,
) -> Fitted:
    return train(ready.trial(learning, cfg, draw), job.store, length, watch)


def _fingerprint(
    job: TrainingJob, parts: dict[str, np.ndarray], inner: list[np.ndarray], seed: int
) -> str:
    """Of everything that decides a training's result."""
    values = _values(job.labels)
    return digest(
        job.model_name,
        job.model.canonical(),
        job.cfg.canonical(NOT_TRAINING),
        job.task.canonical(),
        job.versions,
        job.store.digest(),
        list(job.store.cases),
        values,
        [[b.task.canonical(), b.known.tolist(), _values(b.labels)] for b in job.auxiliary],
        list(job.labels.classes),
        {part: rows.tolist() for part, rows in parts.items()},
        [rows.tolist() for rows in inner],
        seed,
        job.store.device.type,
    )


def _values(labels: Labels) -> list[Any]:
    values = (labels.time, labels.event, labels.label, labels.targets)
    return [None if v is None else v.tolist() for v in values]


def _levels_absent(job: TrainingJob, shape: Shape) -> dict[str, list[str]]:
    """Wanted levels that a teacher's features do not have: masked tokens, said aloud."""
    wanted = getattr(job.model, "levels", ())
    absent = {
        teacher: [level for level in wanted if level not in dims]
        for teacher, dims in zip(shape.teachers, shape.dims, strict=True)
    }
    return {teacher: levels for teacher, levels in absent.items() if levels}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    names = list(rows[0])
    text.write(",".join(names) + "\n")
    for row in rows:
        cells = [row[name] for name in names]
        text.write(",".join(f"{c:.8g}" if isinstance(c, float) else str(c) for c in cells) + "\n")
    return text.getvalue()
