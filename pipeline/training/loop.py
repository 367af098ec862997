"""The loop: real batches, early stopping on validation, the test part untouched."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor

from pipeline.aggregators.network import Network, Objective
from pipeline.bags.sampling import draw
from pipeline.bags.store import Store, gather
from pipeline.config import TrainingConfig
from pipeline.errors import UserError
from pipeline.training.optimiser import AdamW
from pipeline.training.predict import Batches, outputs, precision
from pipeline.training.sampler import batches
from pipeline.training.tasks import Head

EVENT = 1
CLIP = 5.0


@dataclasses.dataclass(frozen=True)
class Fitted:
    """How a training went; the network holds the weights of the best epoch."""

    best_epoch: int
    history: list[dict[str, float]]


def train(
    network: Network,
    head: Head,
    store: Store,
    y: np.ndarray,
    parts: dict[str, np.ndarray],
    cfg: TrainingConfig,
    seed: int,
) -> Fitted:
    """Train on one fold's training part, keep the epoch that is best on its validation part.

    Args:
        network: fitted to the training part (`Network.fit`) and on the store's device.
        head: the task's head, fitted to the training part.
        store: the bags.
        y: float32 (cases, columns), as `head.targets` makes it.
        parts: case numbers of `train` and `val`. Nothing else is read.
        cfg: epochs, patience, batch size and so on.
        seed: of the order, the tile draws and the dropout.

    Raises:
        UserError: the loss is not a number.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    learn = parts["train"]
    targets = torch.from_numpy(y).to(store.device)
    strata = head.strata(y[learn])
    needed = EVENT if head.kind == "cox" else None
    sizes, limit = store.sizes, _limit(cfg)
    validation = Batches(store, parts["val"], cfg.max_tiles_per_case)
    aims = y[parts["val"]]

    def judge() -> tuple[float, float]:
        out = outputs(network, validation, cfg.precision)
        judged = np.stack([out[case] for case in parts["val"].tolist()])
        loss = float(head.loss(torch.from_numpy(judged), torch.from_numpy(aims)))
        return loss, head.metric(judged, aims)

    optimiser = AdamW(network.parameters(), cfg.learning_rate, cfg.weight_decay, clip=CLIP)
    best, best_epoch, best_values = math.inf, 0, optimiser.snapshot()
    history: list[dict[str, float]] = []
    for epoch in range(1, cfg.epochs + 1):
        network.train()
        optimiser.learning_rate = cfg.learning_rate * cosine(epoch, cfg.epochs)
        total = 0.0
        drawn = draw(sizes, learn.tolist(), limit, rng)
        for chosen in batches(learn, strata, cfg.batch_size, rng, needed):
            batch = gather(store, {case: drawn[case] for case in chosen.tolist()})
            with precision(store.device, cfg.precision):
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
        if not math.isfinite(total):
            raise UserError(
                f"training: the loss is not a number in epoch {epoch}; lower "
                f"training.learning_rate (now {cfg.learning_rate})"
            )
        val_loss, metric = judge()
        history.append(_row(epoch, total, val_loss, metric, optimiser.learning_rate))
        if val_loss < best:
            best, best_epoch, best_values = val_loss, epoch, optimiser.snapshot()
        elif epoch - best_epoch >= cfg.patience:
            break
    optimiser.restore(best_values)
    network.settle(validation, y, objective(head, y[learn]))
    return Fitted(best_epoch, history)


def objective(head: Head, y: np.ndarray) -> Objective:
    """The task as a network may know it; the constant prediction is fitted to y."""
    return Objective(head.loss, head.evidence, head.null(y))


def _row(epoch: int, train: float, val: float, metric: float, rate: float) -> dict[str, float]:
    return {
        "epoch": epoch,
        "train_loss": train,
        "val_loss": val,
        "val_metric": metric,
        "learning_rate": rate,
    }


def cosine(epoch: int, epochs: int) -> float:
    """The share of the learning rate in an epoch (from 1): half a cosine down to a tenth."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def _limit(cfg: TrainingConfig) -> int | None:
    limits = [n for n in (cfg.tiles_per_step, cfg.max_tiles_per_case) if n is not None]
    return min(limits, default=None)
