"""The loop: real batches, early stopping on validation, the test part untouched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.aggregators.network import Endpoint, Network, Objective
from pipeline.bags.sampling import draw
from pipeline.bags.store import Store, gather
from pipeline.config.training import TrainingConfig
from pipeline.errors import UserError
from pipeline.runtime import progress
from pipeline.training.head import Head
from pipeline.training.multitask import MultiHead
from pipeline.training.optimiser import AdamW
from pipeline.training.predict import Batches, outputs, precision
from pipeline.training.sampler import batches
from pipeline.training.tasks import own

CLIP = 5.0


@dataclasses.dataclass(frozen=True)
class Fitted:
    """How a training went; the network holds the weights of the epoch that was kept.

    Attributes:
        best_epoch: the epoch that was kept, from 1.
        history: a row an epoch: epoch, train_loss, val_loss, val_metric (NaN without a validation
            part) and learning_rate.
        validated: float32 (epochs, validation cases, C), raw outputs after each epoch; empty unless
            the training had a fixed length.
    """

    best_epoch: int
    history: list[dict[str, float]]
    validated: np.ndarray


def train(
    network: Network,
    head: Head,
    store: Store,
    y: np.ndarray,
    parts: dict[str, np.ndarray],
    cfg: TrainingConfig,
    seed: int,
    length: int | None = None,
    watch: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Train on one fold's training part, keep the epoch that is best on its validation part.

    With `length` the training runs for just so many epochs of the same schedule and the last one
    is kept: a validation part, if there is one, only looks on.

    Args:
        network: fitted to the training part (`Network.fit`) and on the store's device.
        head: the task's head, fitted to the training part.
        store: the bags.
        y: float32 (cases, columns), as `head.targets` makes it.
        parts: case numbers of `train` and `val` (which may be empty with `length`). Nothing else
            is read.
        cfg: epochs, patience, batch size and so on.
        seed: of the order, the tile draws and the dropout.
        length: epochs to train for; None: until early stopping or `cfg.epochs`.
        watch: called with each row of the history.

    Raises:
        UserError: the loss is not a number.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    learn = parts["train"]
    targets = torch.from_numpy(y).to(store.device)
    strata = head.strata(y[learn])
    sizes, limit = store.sizes, tile_limit(cfg)
    validation = Batches(store, parts["val"], cfg.max_tiles_per_case)
    aims = y[parts["val"]]
    validated: list[np.ndarray] = []

    def judge() -> tuple[float, float]:
        if not len(aims):
            return math.nan, math.nan
        out = outputs(network, validation, cfg.precision)
        judged = np.stack([out[case] for case in parts["val"].tolist()])
        if length is not None:
            validated.append(judged)
        return appraise(head, judged, aims)

    optimiser = AdamW(network.parameters(), cfg.learning_rate, cfg.weight_decay, clip=CLIP)
    best, best_epoch, best_values = math.inf, 0, optimiser.snapshot()
    history: list[dict[str, float]] = []
    for epoch in progress.counted(range(1, (length or cfg.epochs) + 1), "epochs"):
        network.train()
        optimiser.learning_rate = cfg.learning_rate * cosine(epoch, cfg.epochs)
        total = 0.0
        drawn = draw(sizes, learn.tolist(), limit, rng)
        for chosen in batches(learn, strata, cfg.batch_size, rng, head.needed):
            batch = gather(store, {case: drawn[case] for case in chosen.tolist()})
            with precision(batch, cfg.precision):
                output = network(batch)
                aim = targets[batch.cases]
                extra = network.auxiliary(output, batch, head.classes_of(aim))
            loss: Tensor = head.loss(output.out.float(), aim)
            if extra is not None:
                loss = loss + extra
            optimiser.zero()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(chosen) / len(learn)
        check_finite(total, epoch, cfg.learning_rate)
        val_loss, metric = judge()
        history.append(history_row(epoch, total, val_loss, metric, optimiser.learning_rate))
        progress.note(told(total, metric, head.metric_name))
        if watch is not None:
            watch(history[-1])
        if length is not None:
            best_epoch = epoch
        elif math.isnan(val_loss):
            raise UserError(
                f"training: the {len(aims)} validation cases have no event, so that no epoch can "
                "be told from another; use another folds.validation_fraction, or more cases"
            )
        elif val_loss < best:
            best, best_epoch, best_values = val_loss, epoch, optimiser.snapshot()
        elif epoch - best_epoch >= cfg.patience:
            break
    if length is None:
        optimiser.restore(best_values)
    if len(aims):
        network.settle(validation, y, objective(head, y[learn]))
    return Fitted(best_epoch, history, np.array(validated, dtype=np.float32))


def appraise(head: Head, out: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Loss and metric of a validation part's raw outputs float32 (n, C); NaN where undefined.

    What is learned beside the task does not count.
    """
    head, out, y = own(head, out, y)
    if head.needed is not None and head.needed not in head.strata(y):
        return math.nan, math.nan
    loss = float(head.loss(torch.from_numpy(out), torch.from_numpy(y)))
    return loss, head.metric(out, y)


def check_finite(loss: float, epoch: int, learning_rate: float) -> None:
    """Raises UserError when a loss is not a number."""
    if not math.isfinite(loss):
        raise UserError(
            f"training: the loss is not a number in epoch {epoch}; lower "
            f"training.learning_rate (now {learning_rate})"
        )


def objective(head: Head, y: np.ndarray) -> Objective:
    """The task as a network may know it; the constant prediction is fitted to y."""
    endpoints = []
    for name, one, outs, columns in head.places() if isinstance(head, MultiHead) else ():
        aims = y[:, columns]
        known = ~np.isnan(aims).any(axis=1)
        endpoints.append(Endpoint(name, objective(one, aims[known]), outs, columns))
    return Objective(head.loss, head.evidence, head.null(y), head.one_question, tuple(endpoints))


def history_row(
    epoch: int, train: float, val: float, metric: float, rate: float
) -> dict[str, float]:
    """One epoch of a history."""
    return {
        "epoch": epoch,
        "train_loss": train,
        "val_loss": val,
        "val_metric": metric,
        "learning_rate": rate,
    }


def told(loss: float, metric: float, name: str) -> str:
    """An epoch as a log tells it."""
    validation = "" if math.isnan(metric) else f", validation {name} {metric:.3f}"
    return f"loss {loss:.4g}{validation}"


def cosine(epoch: int, epochs: int) -> float:
    """The share of the learning rate in an epoch (from 1): half a cosine down to a tenth."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def tile_limit(cfg: TrainingConfig) -> int | None:
    """Most tiles of a bag that a training step reads."""
    limits = [n for n in (cfg.tiles_per_step, cfg.max_tiles_per_case) if n is not None]
    return min(limits, default=None)
