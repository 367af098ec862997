"""Nested cross-validation: settings and epochs chosen inside what a fold may learn from.

For every point of the grid a model is trained on all inner parts but one and judged on that one
after every epoch; the mean over the inner parts picks point and epoch; with these the model is
trained again on everything that the fold may learn from. The test part is not read (Filiot et al.
2023, supplement, describe the scheme; here epochs are counted from 1, all points see the same
inner parts, order and first weights, and a finished inner training is not repeated).
"""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.config.models import ModelConfig
from pipeline.config.training import NestedConfig, TrainingConfig
from pipeline.contracts.model_meta import GridPoint, Nested
from pipeline.errors import UserError
from pipeline.files.artifacts import atomic_path
from pipeline.files.digests import digest
from pipeline.files.parquet import stack_columns
from pipeline.runtime import progress
from pipeline.training.job import Prepared, TrainingJob, prepare, seed_of
from pipeline.training.loop import Fitted, Trial, train
from pipeline.training.stacked_training import alike, pays, train_together

# Raised when nested selection chooses differently. 1: the first. 2: torch's own AdamW.
VERSION = 2

CURVES = ("epoch", "train_loss", "val_loss", "val_metric", "learning_rate")


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the inner folds chose.

    Attributes:
        cfg, model: settings and model at the chosen point.
        point: the point.
        epoch: epochs to train for.
        score: what it was chosen by: mean over the inner parts of the metric, or of the loss.
        judged_by: which of the two: `metric` or `loss`.
        standings: for each point of the grid where it stood, as `standings` says.
        curves: the chosen point's mean over the inner parts: float64 (epochs, len(CURVES)).
        trials: a row for each inner training and epoch, for `inner.csv`.
        cases: int64 (n,), every case that was held out of an inner training, and
        unseen: predictions of each by that training, as `Head.columns`.
    """

    cfg: TrainingConfig
    model: ModelConfig
    point: dict[str, Any]
    epoch: int
    score: float
    judged_by: Literal["metric", "loss"]
    standings: list[GridPoint]
    curves: np.ndarray
    trials: list[dict[str, Any]]
    cases: np.ndarray
    unseen: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Inner:
    """One inner training, before it is done.

    Attributes:
        point, part: numbers of the grid point and of the inner part that is held out.
        cfg, model: at that point.
        parts: case numbers of `train` and `val`.
        draw: its seed; the same at all points.
        path: where its result lies or will lie.
        fingerprint: of all that decides it.
    """

    point: int
    part: int
    cfg: TrainingConfig
    model: ModelConfig
    parts: dict[str, np.ndarray]
    draw: int
    path: Path
    fingerprint: str


def search(
    job: TrainingJob,
    nested: NestedConfig,
    inner: Sequence[np.ndarray],
    folder: Path,
    fingerprint: str,
    key: tuple[object, ...],
) -> Choice:
    """Train every grid point on every inner part and choose.

    Args:
        job: the model and its data.
        nested: grid and criterion.
        inner: case numbers of each inner part.
        folder: of the fold and seed; results of inner trainings wait in its `inner/` until all are
            there.
        fingerprint: of the fold's training.
        key: seeds every inner training, together with its part's number.

    Raises:
        UserError: an inner training has nothing to learn from, or no epoch can be judged.
    """
    if any(not len(part) for part in inner):
        raise UserError("folds.inner: an inner part has no case with features; see coverage.csv")
    points = nested.points()
    planned = _plan(job, points, inner, folder / "inner", fingerprint, key)
    _run(job, planned)
    fitted = {(trial.point, trial.part): _read(trial) for trial in planned}
    curves = np.array(
        [[_table(fitted[p, i]) for i in range(len(inner))] for p in range(len(points))]
    )  # (points, parts, epochs, columns)
    p, epoch, score = choose(curves, nested.criterion)
    winners = [trial for trial in planned if trial.point == p]
    columns = []
    for trial in winners:
        out = fitted[p, trial.part].validated[epoch - 1]
        head = job.head(trial.parts["train"])
        columns.append(head.columns(out, head.targets(job.labels)[trial.parts["val"]]))
    return Choice(
        cfg=winners[0].cfg,
        model=winners[0].model,
        point=points[p],
        epoch=epoch,
        score=score,
        judged_by="metric" if _by_metric(curves, nested.criterion) else "loss",
        standings=standings(points, curves, nested.criterion),
        curves=curves[p].mean(0),
        trials=[
            {"point": t.point, **points[t.point], "part": t.part, **row}
            for t in planned
            for row in fitted[t.point, t.part].history
        ],
        cases=np.concatenate(list(inner)),
        unseen=stack_columns(columns),
    )


def forget(folder: Path) -> None:
    """Remove the inner results of a fold that is done."""
    shutil.rmtree(folder / "inner", ignore_errors=True)


def unseen_in_place(columns: dict[str, Any], rows: np.ndarray, choice: Choice) -> None:
    """Predictions of inner trainings, which had not seen the case, in place of the final model's.

    The final model has learned from the validation part.

    Args:
        columns: the table of predictions, whose `val` rows are changed.
        rows: int64 (n,), the case number of each row.
        choice: what the inner folds chose.
    """
    inside = np.flatnonzero(columns["split"] == "val")
    place = {int(case): i for i, case in enumerate(choice.cases)}
    found = np.array([place[int(row)] for row in rows[inside]], dtype=np.int64)
    for name, values in choice.unseen.items():
        if name in columns:
            columns[name][inside] = values[found]


def with_inner(history: list[dict[str, float]], choice: Choice) -> list[dict[str, float]]:
    """The final training's history, with the chosen point's inner means as validation."""
    inner = choice.curves[:, [CURVES.index("val_loss"), CURVES.index("val_metric")]]
    return [
        {**row, "val_loss": float(loss), "val_metric": float(metric)}
        for row, (loss, metric) in zip(history, inner, strict=False)
    ]


def chosen(job: TrainingJob, choice: Choice, parts: int) -> Nested:
    """What meta.json says of the choice.

    Args:
        job: the model and its data.
        choice: what the inner folds chose.
        parts: how many inner parts there were.
    """
    assert job.cfg.nested is not None
    points = len(job.cfg.nested.points())
    return Nested(
        chosen=choice.point,
        epochs=choice.epoch,
        criterion=job.cfg.nested.criterion,
        judged_by=choice.judged_by,
        score=choice.score,
        grid=choice.standings,
        points=points,
        parts=parts,
        trainings=points * parts + 1,
    )


def choose(curves: np.ndarray, criterion: str) -> tuple[int, int, float]:
    """The best grid point and number of epochs.

    Args:
        curves: float64 (points, parts, epochs, len(CURVES)).
        criterion: `metric` (highest mean; the lower mean loss decides between equals) or `loss`.

    Returns:
        number of the point, epochs from 1, and the mean that won.

    Raises:
        UserError: neither metric nor loss is defined anywhere.
    """
    by_metric = _by_metric(curves, criterion)
    loss = _mean(curves[..., CURVES.index("val_loss")])
    judged = _mean(curves[..., CURVES.index("val_metric")]) if by_metric else loss
    value = judged if by_metric else -judged
    if not np.isfinite(value).any():
        raise UserError("nested cross-validation: no epoch of any grid point has a finite loss")
    value = np.where(np.isfinite(value), value, -np.inf)
    best = np.argwhere(value >= value.max() - 1e-12)
    p, e = min(best.tolist(), key=lambda at: (loss[at[0], at[1]], at))
    return p, e + 1, float(judged[p, e])


def standings(
    points: Sequence[dict[str, Any]], curves: np.ndarray, criterion: str
) -> list[GridPoint]:
    """Where each point of the grid stood at its own best epoch, judged as `choose` judges.

    Args:
        points: of the grid.
        curves, criterion: as in `choose`.
    """
    column = CURVES.index("val_metric" if _by_metric(curves, criterion) else "val_loss")
    found = []
    for point, one in zip(points, curves, strict=True):
        if not np.isfinite(one[..., column]).any():
            found.append(GridPoint(point, None, None, None))
            continue
        _, epoch, score = choose(one[None], criterion)
        parts = one[:, epoch - 1, column]
        parts = parts[np.isfinite(parts)]
        deviation = float(parts.std(ddof=1)) if len(parts) > 1 else None
        found.append(GridPoint(point, epoch, score, deviation))
    return found


def _by_metric(curves: np.ndarray, criterion: str) -> bool:
    """Whether the metric decides: it is asked for, and defined somewhere."""
    metric = curves[..., CURVES.index("val_metric")]
    return criterion == "metric" and bool(np.isfinite(metric).any())


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the inner parts where it is defined: (points, epochs)."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)


def _plan(
    job: TrainingJob,
    points: Sequence[dict[str, Any]],
    inner: Sequence[np.ndarray],
    folder: Path,
    fingerprint: str,
    key: tuple[object, ...],
) -> list[Inner]:
    planned = []
    for p, point in enumerate(points):
        cfg, model = job.cfg.at(point, job.model)
        for i, held_out in enumerate(inner):
            rest = np.sort(np.concatenate([part for j, part in enumerate(inner) if j != i]))
            planned.append(
                Inner(
                    point=p,
                    part=i,
                    cfg=cfg,
                    model=model,
                    parts={"train": rest, "val": held_out},
                    draw=seed_of(*key, i),
                    path=folder / f"point_{p}_part_{i}.npz",
                    fingerprint=digest(fingerprint, point, i),
                )
            )
    return planned


def _run(job: TrainingJob, planned: Sequence[Inner]) -> None:
    """Do what is not done; trainings that can be done together are."""
    groups: dict[str, list[Inner]] = {}
    for trial in planned:
        groups.setdefault(digest(trial.model.model_dump(mode="json")), []).append(trial)
    with progress.part("inner models", len(planned)) as part:
        for group in groups.values():
            open_ = [trial for trial in group if not _done(trial)]
            if open_:
                _train(job, group, open_)
            part.step(len(group))


def _train(job: TrainingJob, group: Sequence[Inner], open_: Sequence[Inner]) -> None:
    """Together if that pays (then all of a group, so that dropout draws the same), else in turn."""
    first = _prepared(job, group[0])
    if pays([_trial(group[0], first)] * 2, job.store):
        trials = [_trial(inner, _prepared(job, inner)) for inner in group]
        stacks: dict[Any, list[int]] = {}
        for n, trial in enumerate(trials):
            stacks.setdefault(alike(trial), []).append(n)
        for rows in stacks.values():
            chosen = [trials[n] for n in rows]
            for n, fitted in zip(
                rows, train_together(chosen, job.store, job.cfg.epochs), strict=True
            ):
                _write(group[n], fitted)
        return
    for inner in open_:
        trial = _trial(inner, _prepared(job, inner))
        _write(inner, train(trial, job.store, inner.cfg.epochs))


def _prepared(job: TrainingJob, inner: Inner) -> Prepared:
    return prepare(job, inner.cfg, inner.model, inner.parts["train"], inner.draw)


def _trial(inner: Inner, ready: Prepared) -> Trial:
    return ready.trial(inner.parts, inner.cfg, inner.draw)


def _table(fitted: Fitted) -> np.ndarray:
    """The history as float64 (epochs, len(CURVES))."""
    return np.array([[row[name] for name in CURVES] for row in fitted.history])


def _write(inner: Inner, fitted: Fitted) -> None:
    with atomic_path(inner.path) as temporary, temporary.open("wb") as handle:
        np.savez(
            handle,
            fingerprint=np.array(inner.fingerprint),
            history=_table(fitted),
            validated=fitted.validated,
        )


def _done(inner: Inner) -> bool:
    try:
        with np.load(inner.path, allow_pickle=False) as stored:
            return str(stored["fingerprint"]) == inner.fingerprint
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return False


def _read(inner: Inner) -> Fitted:
    with np.load(inner.path, allow_pickle=False) as stored:
        history = [dict(zip(CURVES, row, strict=True)) for row in stored["history"].tolist()]
        return Fitted(len(history), history, stored["validated"])
