"""The training stage: one model of one task, every fold and seed, in one process.

The bags are read once and shared by all trainings. Writes `models/<task>/<model>/`:

- `fold_<k>/seed_<s>/`: weights.safetensors, history.csv, predictions.parquet, attention.parquet and
  last meta.json. A folder whose meta.json carries the fingerprint of what would be trained now is
  not trained again.
- `predictions.parquet`: the predictions of all folds and seeds for train, val and test cases.
"""

from __future__ import annotations

import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pipeline.aggregators.network import Lesson, Shape, parameter_count
from pipeline.artifacts import read_json, write_text
from pipeline.bags.store import Store, open_store
from pipeline.config import ModelConfig, SurvivalTask, TrainingConfig
from pipeline.errors import ArtifactError, UserError
from pipeline.labels import Labels, Task, read_labels
from pipeline.provenance import digest
from pipeline.splits import PARTS, Fold, read_folds
from pipeline.training.attention import attention_table, extremes, slide_names
from pipeline.training.checkpoint import read_meta, save_checkpoint
from pipeline.training.loop import objective, train
from pipeline.training.models import build_network, reads
from pipeline.training.predict import predict
from pipeline.training.tables import read_columns, stack_columns, write_columns
from pipeline.training.tasks import Head, fit_head

NOT_TRAINING = {
    "models",
    "ablations",
    "seeds",
}  # keys of TrainingConfig that no training depends on


@dataclasses.dataclass(frozen=True)
class Job:
    """What all folds and seeds of a run share."""

    cfg: TrainingConfig
    model_name: str
    model: ModelConfig
    task: Task
    store: Store
    labels: Labels
    code: str
    slides: dict[tuple[str, str], str]


def run(
    *,
    cfg: TrainingConfig,
    model_name: str,
    model: ModelConfig,
    task_name: str,
    task: Task,
    root: Path,
    code: str,
    workers: int,
    device: str,
) -> None:
    """Train one model of one task on every fold and seed, and predict all cases.

    Args:
        cfg: the training section.
        model_name: the model's name: the folder, and part of every seed.
        model: its config, with `teacher: each` expanded.
        task_name: the task's name.
        task: the task.
        root: the results folder.
        code: fingerprint of the code; part of each training's fingerprint.
        workers: CPU threads.
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ….

    Raises:
        UserError: inputs do not fit together, or a part cannot be learned from.
    """
    torch.set_num_threads(max(1, workers))
    folds = read_folds(root, task_name)
    cases = sorted({case for fold in folds for part in PARTS for case in fold.part(part)})
    labels = _aligned(
        read_labels(read_columns(root / "cases.parquet"), task_name, task), cases, task_name
    )
    mapping = read_json(root / "case_to_features.json")
    unknown = [case for case in cases if case not in mapping["cases"]]
    if unknown:
        raise ArtifactError(
            f"folds/{task_name}: case `{unknown[0]}` is not in case_to_features.json "
            f"({len(unknown)} such cases); run `folds` again"
        )
    teachers, levels = reads(model, mapping)
    store = open_store(mapping, root, teachers, levels, cases, _device(device))
    slides = slide_names(root) if cfg.attention_cases_per_fold else {}
    job = Job(cfg, model_name, model, task, store, labels, code, slides)
    folder = root / "models" / task_name / model_name
    work = [(fold, seed) for fold in folds for seed in cfg.seeds]
    tables = [
        _fold(job, fold, seed, folder / f"fold_{fold.index}" / f"seed_{seed}")
        for fold, seed in tqdm(work, desc=f"{task_name}/{model_name}", unit="fit", disable=None)
    ]
    write_columns(folder / "predictions.parquet", stack_columns(tables))


def _fold(job: Job, fold: Fold, seed: int, folder: Path) -> dict[str, Any]:
    """Train one fold with one seed unless that is done, and return its predictions."""
    place = {case: i for i, case in enumerate(job.store.cases)}
    parts: dict[str, np.ndarray] = {
        part: np.array([place[case] for case in fold.part(part)], dtype=np.int64) for part in PARTS
    }
    has = np.asarray(job.store.present.any(axis=1))
    usable = {part: rows[has[rows]] for part, rows in parts.items()}
    for part in ("train", "val"):
        if not len(usable[part]):
            raise UserError(
                f"fold {fold.index}: no {part} case has features of "
                f"{', '.join(t.name for t in job.store.teachers)}; see coverage.csv"
            )
    fingerprint = _fingerprint(job, usable, seed)
    done = read_meta(folder)
    if done is not None and done.get("fingerprint") == fingerprint:
        return read_columns(folder / "predictions.parquet")
    started = time.perf_counter()
    head = fit_head(job.task, job.labels, usable["train"])
    y = head.targets(job.labels)
    draw = int(digest(seed, fold.index, job.model_name), 16) % 2**63
    torch.manual_seed(draw)
    shape = Shape(
        tuple(t.name for t in job.store.teachers),
        tuple(t.dims for t in job.store.teachers),
        head.outputs,
    )
    network = build_network(job.model, shape)
    learned = usable["train"]
    lesson = Lesson(
        store=job.store,
        train=learned,
        y=y,
        strata=head.strata(y[learned]),
        task=objective(head, y[learned]),
        standardise=job.cfg.standardise,
        seed=draw,
    )
    network.fit(lesson)
    network.to(job.store.device)
    learning = {part: usable[part] for part in ("train", "val")}
    fitted = train(network, head, job.store, y, learning, job.cfg, draw)

    rows = np.concatenate([usable[part] for part in PARTS])
    splits = np.repeat(np.array(PARTS, dtype=object), [len(usable[part]) for part in PARTS])
    limit = job.cfg.max_tiles_per_case
    asked = time.perf_counter()
    out = predict(network, job.store, rows, limit, job.cfg.precision)
    answered = time.perf_counter()
    columns: dict[str, Any] = {
        "seed": np.full(len(rows), seed, dtype=np.int64),
        "fold": np.full(len(rows), fold.index, dtype=np.int64),
        "split": splits,
        "case_id": np.array([job.store.cases[row] for row in rows], dtype=object),
        **head.columns(out, y[rows]),
    }
    tested = usable["test"]
    score = head.score(out[splits == "test"])
    shown = tested[extremes(score, job.cfg.attention_cases_per_fold)]
    table = attention_table(network, job.store, shown, limit, job.slides)
    write_columns(folder / "attention.parquet", table)
    write_columns(folder / "predictions.parquet", columns)
    write_text(folder / "history.csv", _csv(fitted.history))
    meta = {
        "fingerprint": fingerprint,
        "model_name": job.model_name,
        "model": job.model.model_dump(mode="json"),
        "task": job.task.model_dump(mode="json"),
        "teachers": list(shape.teachers),
        "dims": list(shape.dims),
        "outputs": shape.outputs,
        "head": head.facts(),
        "network": network.facts(),
        "levels_absent": _levels_absent(job, shape),
        "fold": fold.index,
        "seed": seed,
        "labelled": fold.labelled,
        "cases": {part: len(usable[part]) for part in PARTS},
        "cases_without_features": {part: len(parts[part]) - len(usable[part]) for part in PARTS},
        "cutoffs": _cutoffs(job.task, head, out[splits == "train"]),
        "best_epoch": fitted.best_epoch,
        "epochs": len(fitted.history),
        "n_parameters": parameter_count(network),
        "resident": job.store.resident is not None,
        "device": str(job.store.device),
        "seconds": round(time.perf_counter() - started, 3),
        "inference_seconds_per_case": round((answered - asked) / len(rows), 6),
    }
    save_checkpoint(folder, network, meta)
    return columns


def _fingerprint(job: Job, parts: dict[str, np.ndarray], seed: int) -> str:
    """Of everything that decides a training's result."""
    values = [job.labels.time, job.labels.event, job.labels.label, job.labels.targets]
    return digest(
        job.model_name,
        job.model.model_dump(mode="json"),
        job.cfg.model_dump(mode="json", exclude=NOT_TRAINING),
        job.task.model_dump(mode="json"),
        job.code,
        job.store.digest(),
        list(job.store.cases),
        [None if v is None else v.tolist() for v in values],
        list(job.labels.classes),
        {part: rows.tolist() for part, rows in parts.items()},
        seed,
        job.store.device.type,
    )


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
    rows = np.array([place[case] for case in cases], dtype=np.int64)

    def pick(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else values[rows]

    return dataclasses.replace(
        labels,
        cases=tuple(cases),
        time=pick(labels.time),
        event=pick(labels.event),
        label=pick(labels.label),
        targets=pick(labels.targets),
    )


def _levels_absent(job: Job, shape: Shape) -> dict[str, list[str]]:
    """Wanted levels that a teacher's features do not have: masked tokens, said aloud."""
    wanted = getattr(job.model, "levels", ())
    absent = {
        teacher: [level for level in wanted if level not in dims]
        for teacher, dims in zip(shape.teachers, shape.dims, strict=True)
    }
    return {teacher: levels for teacher, levels in absent.items() if levels}


def _cutoffs(task: Task, head: Head, out: np.ndarray) -> dict[str, Any]:
    """Risk cut-offs of the training part, for Kaplan-Meier groups."""
    if not isinstance(task, SurvivalTask):
        return {}
    risk = head.score(out)
    tertiles = np.quantile(risk, [1 / 3, 2 / 3])
    return {"median": float(np.median(risk)), "tertiles": [float(v) for v in tertiles]}


def _csv(history: list[dict[str, float]]) -> str:
    text = io.StringIO()
    names = list(history[0])
    text.write(",".join(names) + "\n")
    for row in history:
        text.write(",".join(f"{row[name]:.8g}" for name in names) + "\n")
    return text.getvalue()


def _device(wanted: str) -> torch.device:
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
