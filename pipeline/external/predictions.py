"""One trained model of one task, every fold and seed, on a cohort that had no part in its training.

Writes `models/<task>/<model>/predictions.parquet`: as training does, with the cohort's cases as
`test` of every fold, and the rows of the training cases as they were, by which risks come to one
scale and cut-offs are set. Nothing is fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipeline.bags.store import open_store
from pipeline.config.external import ExternalPredictionsJob
from pipeline.config.models import STACKS
from pipeline.config.tasks import ClassificationTask
from pipeline.contracts.case_map import CaseMap, read_case_map, with_made
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.labels import Labels, Task, read_labels
from pipeline.contracts.model_meta import ModelMeta, read_metas
from pipeline.errors import ArtifactError, UserError
from pipeline.external.stacks import stacked
from pipeline.files.artifacts import sweep
from pipeline.files.digests import digest
from pipeline.files.parquet import Columns, read_columns, stack_columns, write_columns
from pipeline.runtime import progress
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.training.checkpoint import load_checkpoint
from pipeline.training.head import Head
from pipeline.training.job import device_of
from pipeline.training.multitask import MultiHead
from pipeline.training.predict import predict
from pipeline.training.tasks import from_facts

# Raised when predictions of external cohorts change. 1: the first.
VERSION = 1

FILE = "predictions.parquet"


def run(
    *,
    job: ExternalPredictionsJob,
    root: Path,
    task: str,
    model: str,
    workers: int = 1,
    device: str = "auto",
) -> None:
    """Apply a model to the cases of the cohort.

    Args:
        job: the job.
        root: results folder of the external cohort.
        task, model: names.
        workers: threads beside a GPU; without one it takes one, as training does.
        device: `auto`, `cpu`, `cuda`, ….

    Raises:
        UserError: the model was not trained to its end, or no case has features and a label.
        ArtifactError: a file is missing or damaged, or the features are not those of the model.
    """
    place = device_of(device)
    torch.set_num_threads(cpu_budget(max(1, workers)) if place.type == "cuda" else 1)
    trained = Path(job.external.trained) / "models" / task / model
    metas = read_metas(trained)
    if not metas:
        raise UserError(f"{trained}: no finished training; run the training cohort to its end")
    labels = external_labels(root, task, job.task, metas[0])
    if metas[0].model["kind"] in STACKS:
        said = stacked(root, Path(job.external.trained), task, metas, labels.cases)
        tables = [
            _table(meta, from_facts(meta.head), out, labels.take(rows))
            for meta, (rows, out) in zip(metas, said, strict=True)
        ]
    else:
        tables = _of_networks(job, root, trained, metas, labels, place)
    if not any(len(table["case_id"]) for table in tables):
        raise UserError(f"no case has a label of `{task}` and features; see coverage.csv")
    known = read_columns(trained / FILE)
    train = np.asarray([split == "train" for split in known["split"]])
    before = {name: np.asarray(values)[train] for name, values in known.items()}
    names = [name for name in before if all(name in table for table in tables)]
    target = root / "models" / task / model
    sweep(target)
    parts = [{name: part[name] for name in names} for part in (before, *tables)]
    write_columns(target / FILE, stack_columns(parts))


def _of_networks(
    job: ExternalPredictionsJob,
    root: Path,
    trained: Path,
    metas: Sequence[ModelMeta],
    labels: Labels,
    place: torch.device,
) -> list[Columns]:
    """What the networks of each fold and seed say of the cases that have features."""
    tables: list[Columns] = []
    # Encoders of a fold's own give that fold's models features of their own.
    by_folder: dict[str, list[ModelMeta]] = {}
    for meta in metas:
        by_folder.setdefault(digest(_folders(job, meta)), []).append(meta)
    for some in by_folder.values():
        mapping = with_made(read_case_map(root), root, _folders(job, some[0]))
        tables += _of_features(job, root, trained, some, labels, place, mapping)
    return tables


def _folders(job: ExternalPredictionsJob, meta: ModelMeta) -> dict[str, str]:
    return {name: folder.format(fold=meta.fold) for name, folder in job.made.items()}


def _of_features(
    job: ExternalPredictionsJob,
    root: Path,
    trained: Path,
    metas: Sequence[ModelMeta],
    labels: Labels,
    place: torch.device,
    mapping: CaseMap,
) -> list[Columns]:
    for name, dims in zip(metas[0].teachers, metas[0].dims, strict=True):
        has = mapping.teachers[name].dims if name in mapping.teachers else {}
        if any(has.get(level) != width for level, width in dims.items()):
            raise ArtifactError(
                f"features of `{name}`: here {has or 'none'}, the model was trained on {dims}; "
                "they were made by another encoder"
            )
    cases = [case for case in labels.cases if case in mapping.cases]
    levels = list(dict.fromkeys(level for dims in metas[0].dims for level in dims))
    store = open_store(mapping, root, metas[0].teachers, levels, cases, place)
    has_any = np.asarray(store.present.any(axis=1))
    rows = np.flatnonzero(has_any)
    own = labels.take(np.array([labels.cases.index(cases[row]) for row in rows], dtype=np.int64))
    tables = []
    for meta in progress.counted(metas, "models") if len(rows) else ():
        network, head, _ = load_checkpoint(trained / f"fold_{meta.fold}" / f"seed_{meta.seed}")
        limit = limit_of(meta, job.max_tiles)
        out = predict(network.to(place), store, rows, limit, job.precision)
        tables.append(_table(meta, head, out, own))
    return tables


def limit_of(meta: ModelMeta, otherwise: int | None) -> int | None:
    """Most tiles of a case that a model reads: as nested cross-validation chose, or as given."""
    key = "max_tiles_per_case"
    chosen = meta.nested.chosen if meta.nested is not None else {}
    return chosen.get(key, otherwise)


def external_labels(root: Path, name: str, task: Task, meta: ModelMeta) -> Labels:
    """The cohort's labels, its classes numbered as a trained model numbers them.

    Args:
        root: results folder of the external cohort, which may lack some of the classes.
        name: the task's name.
        task: the task, as in the config.
        meta: of one of its models, which knows the classes.

    Raises:
        UserError: a case is of a class that the model does not know.
    """
    table = read_columns(root / "cases.parquet")
    spec = spelled_out(task, table)
    if not isinstance(spec, ClassificationTask):
        return read_labels(table, name, spec)
    found = read_labels(table, name, spec.model_copy(update={"classes": None}))
    known = tuple(meta.head["classes"])
    unknown = [one for one in found.classes if one not in known]
    if unknown:
        raise UserError(
            f"tasks.{name}: the cohort has cases of class `{unknown[0]}` in column `{spec.label}`, "
            f"which the models do not know ({', '.join(known)}); write it as they do, or leave the "
            "label of these cases empty"
        )
    assert found.label is not None
    number = np.array([known.index(one) for one in found.classes], dtype=np.int64)
    return dataclasses.replace(found, classes=known, label=number[found.label])


def _table(meta: ModelMeta, head: Head, out: np.ndarray, labels: Labels) -> Columns:
    """What a model says of the cohort's cases, as training writes it of its own."""
    main = head.main if isinstance(head, MultiHead) else head
    said = main.columns(out[:, : main.outputs], main.targets(labels))
    n = len(labels.cases)
    keys: dict[str, np.ndarray] = {
        "seed": np.full(n, meta.seed, dtype=np.int64),
        "fold": np.full(n, meta.fold, dtype=np.int64),
        "split": np.full(n, "test", dtype=object),
        "case_id": np.array(labels.cases, dtype=object),
    }
    return {**keys, **said}
