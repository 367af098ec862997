"""From the results folder to what a training needs: folds, labels, bags."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from pipeline.bags.store import open_store
from pipeline.config.models import LinearModel, ModelConfig
from pipeline.config.training import TrainingConfig
from pipeline.contracts.case_map import read_case_map, with_made
from pipeline.contracts.columns import spelled_out
from pipeline.contracts.folds import PARTS, Fold, read_folds
from pipeline.contracts.folds_summary import read_folds_summary
from pipeline.contracts.labels import Labels, Task, read_labels
from pipeline.errors import ArtifactError
from pipeline.files.parquet import Columns, read_columns
from pipeline.training.attention import slide_names
from pipeline.training.job import TrainingJob, with_cox
from pipeline.training.models import reads, sized
from pipeline.training.multitask import AuxiliaryTask, align


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A task with its folds and labels.

    Attributes:
        task: spelled out.
        folds: its folds.
        labels: of all cases that the folds hold, in the order of their ids.
        groups: int64 (cases,): cases of one group never stand on both sides of a split.
        table: the table of cases.
    """

    task: Task
    folds: list[Fold]
    labels: Labels
    groups: np.ndarray
    table: Columns


def open_endpoint(root: Path, task_name: str, task: Task) -> Endpoint:
    """Read a task's folds and labels.

    Args:
        root: the results folder.
        task_name, task: the task.

    Raises:
        ArtifactError: a case of the folds has no label.
    """
    folds = read_folds(root, task_name)
    cases = sorted({case for fold in folds for part in PARTS for case in fold.part(part)})
    table = read_columns(root / "cases.parquet")
    task = spelled_out(task, table)
    labels = _aligned(read_labels(table, task_name, task), cases, task_name)
    return Endpoint(task, folds, labels, _groups(root, task_name, cases, table), table)


def open_job(
    *,
    cfg: TrainingConfig,
    model_name: str,
    model: ModelConfig,
    task_name: str,
    task: Task,
    root: Path,
    versions: str,
    place: torch.device,
    auxiliary: Mapping[str, Task],
    made: Mapping[str, str],
) -> tuple[TrainingJob, list[Fold]]:
    """What all trainings of a model share, its bags in memory where they fit, and the folds.

    Args:
        cfg: the training section.
        model_name, model: the model.
        task_name, task: the task.
        root: the results folder.
        versions: of the code that this model is trained with.
        place: where it is trained.
        auxiliary: the tasks that `task.auxiliary` names.
        made: the encoder made here that the model reads, and the folder of its features.

    Raises:
        ArtifactError: folds, labels and features do not fit together.
        ConfigError: the model names what the features do not have.
    """
    of = open_endpoint(root, task_name, task)
    cases = list(of.labels.cases)
    learned_too = tuple(
        AuxiliaryTask(
            name, other, of.task.auxiliary[name], *align(read_labels(of.table, name, other), cases)
        )
        for name, given in auxiliary.items()
        for other in [spelled_out(given, of.table)]
    )
    mapping = read_case_map(root)
    unknown = [case for case in cases if case not in mapping.cases]
    if unknown:
        raise ArtifactError(
            f"folds/{task_name}: case `{unknown[0]}` is not in case_to_features.json "
            f"({len(unknown)} such cases); run `folds` again"
        )
    mapping = with_made(mapping, root, _of_fold(made, of.folds[0]))
    teachers, levels = reads(model, mapping)
    job = TrainingJob(
        cfg,
        model_name,
        model,
        of.task,
        open_store(mapping, root, teachers, levels, cases, place),
        of.labels,
        versions,
        slide_names(root) if cfg.attention_cases_per_fold else {},
        of.groups,
        learned_too,
    )
    if isinstance(model, LinearModel):
        job = with_cox(job)
    outputs = job.head(np.arange(len(cases))).outputs
    return dataclasses.replace(job, model=sized(model, mapping, outputs)), of.folds


def in_fold(job: TrainingJob, root: Path, made: Mapping[str, str], fold: Fold) -> TrainingJob:
    """The same with what an encoder of the fold's own sees, where each fold has one.

    Args:
        job: from `open_job`.
        root: the results folder.
        made: as of `open_job`; `{fold}` in a folder's name stands for the fold's number.
        fold: the fold.
    """
    own = _of_fold(made, fold)
    if own == made:
        return job
    mapping = with_made(read_case_map(root), root, own)
    store, cases = job.store, list(job.store.cases)
    teachers, levels = [t.name for t in store.teachers], list(store.teachers[0].levels)
    opened = open_store(mapping, root, teachers, levels, cases, store.device)
    return dataclasses.replace(job, store=opened)


def _of_fold(made: Mapping[str, str], fold: Fold) -> dict[str, str]:
    return {name: folder.format(fold=fold.index) for name, folder in made.items()}


def with_features(cases: Iterable[str], job: TrainingJob) -> np.ndarray:
    """Case numbers of those of the cases that have features of a teacher of the model."""
    place = {case: i for i, case in enumerate(job.store.cases)}
    rows = np.array([place[case] for case in cases], dtype=np.int64)
    return rows[np.asarray(job.store.present.any(axis=1))[rows]]


def _aligned(labels: Labels, cases: list[str], task_name: str) -> Labels:
    """The labels of the given cases, in their order."""
    place = {case: i for i, case in enumerate(labels.cases)}
    lacking = [case for case in cases if case not in place]
    if lacking:
        reason = labels.excluded.get(lacking[0], "not in the case table")
        raise ArtifactError(
            f"folds/{task_name}: case `{lacking[0]}` has no label ({reason}; {len(lacking)} such "
            "cases); run `folds` again"
        )
    return labels.take(np.array([place[case] for case in cases], dtype=np.int64))


def _groups(root: Path, task_name: str, cases: list[str], table: Columns) -> np.ndarray:
    """int64 (cases,): cases of one site where folds keep sites together, else each by itself."""
    if read_folds_summary(root, task_name).group_by != "site":
        return np.arange(len(cases))
    site = dict(zip(table["case_id"], table["site"], strict=True))
    return np.unique([str(site[case]) for case in cases], return_inverse=True)[1]
