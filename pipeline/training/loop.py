"""The loop: real batches, early stopping on validation, the test part untouched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.aggregators.network import Endpoint, Network, Objective
from pipeline.bags.sampling import draw
from pipeline.bags.store import Store, gather
from pipeline.config.training import TrainingConfig
from pipeline.errors import UserError
from pipeline.runtime import progress
from pipeline.training.adamw import AdamW
from pipeline.training.classification import ClassificationHead
from pipeline.training.head import Head
from pipeline.training.multitask import MultiHead
from pipeline.training.plain_answers import Answers, answers_loss, remaining
from pipeline.training.predict import Batches, outputs, precision, predict
from pipeline.training.sampler import batches
from pipeline.training.tasks import main_of, own, type_of

CLIP = 5.0  # largest norm of a gradient

Order = tuple[int, bytes, int | None, int]  # seed, cases, tile limit and batch size of a trial
Drawn = Mapping[int, list[np.ndarray]]  # case -> row numbers per teacher


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        network: fitted to the training part (`Network.fit`) and on the store's device.
        head: the task's head, fitted to the training part.
        y: float32 (cases, columns), as `head.targets` makes it.
        parts: case numbers of `train` and `val` (which may be empty). Nothing else is read.
        cfg: epochs, patience, batch size and so on.
        seed: of the order, the tile draws and the dropout.
        answers: of plain models, to learn from besides the labels.
    """

    network: Network
    head: Head
    y: np.ndarray
    parts: Mapping[str, np.ndarray]
    cfg: TrainingConfig
    seed: int
    answers: Answers | None = None

    def order_key(self) -> Order:
        """Trials with the same key see the same cases and tiles in the same order."""
        limit = tile_limit(self.cfg)
        return self.seed, self.parts["train"].tobytes(), limit, self.cfg.batch_size


class Learner(Protocol):
    """Trials whose weights are updated together."""

    def begin(self, epoch: int, drawn: Mapping[Order, Drawn], rates: Sequence[float]) -> None:
        """Start an epoch.

        Args:
            epoch: from 1.
            drawn: the tiles drawn for it, by order key.
            rates: the learning rate of each trial.
        """
        ...

    def step(self, chosen: Mapping[Order, np.ndarray]) -> Mapping[int, float]:
        """One update from a batch of cases for each order key: trial number -> mean loss."""
        ...

    def validate(self) -> list[np.ndarray]:
        """Raw outputs float32 (n, C) of each trial's validation part."""
        ...


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch of one trial came to.

    Attributes:
        row: of the history: epoch, train_loss, val_loss, val_metric (NaN without a validation part)
            and learning_rate.
        judged: float32 (validation cases, C), raw outputs after it.
    """

    row: dict[str, float]
    judged: np.ndarray


def epochs(
    trials: Sequence[Trial], learner: Learner, store: Store, count: int
) -> Iterator[list[Epoch]]:
    """The loop: every training goes through it, alone or with others.

    Args:
        trials: the trainings.
        learner: holds their weights.
        store: the bags.
        count: epochs at most; whoever iterates may stop before.

    Yields:
        after each epoch, what it came to for each trial.

    Raises:
        UserError: a loss is not a number.
    """
    torch.manual_seed(trials[0].seed)
    dice = [np.random.default_rng(trial.seed) for trial in trials]
    strata = [trial.head.strata(trial.y[trial.parts["train"]]) for trial in trials]
    for epoch in progress.counted(range(1, count + 1), "epochs"):
        drawn: dict[Order, Drawn] = {}
        dealt: dict[Order, list[np.ndarray]] = {}
        for trial, rng, own_strata in zip(trials, dice, strata, strict=True):
            key, learn, cfg = trial.order_key(), trial.parts["train"], trial.cfg
            if key not in drawn:
                drawn[key] = draw(store.sizes, learn.tolist(), tile_limit(cfg), rng)
                dealt[key] = batches(learn, own_strata, cfg.batch_size, rng, trial.head.needed)
        rates = [trial.cfg.learning_rate * cosine(epoch, trial.cfg.epochs) for trial in trials]
        totals = np.zeros(len(trials))
        learner.begin(epoch, drawn, rates)
        for step in range(max(len(each) for each in dealt.values())):
            chosen = {key: each[step] for key, each in dealt.items() if step < len(each)}
            for m, loss in learner.step(chosen).items():
                size = len(chosen[trials[m].order_key()])
                totals[m] += loss * size / len(trials[m].parts["train"])
        ended = [
            _ended(trial, epoch, total, rate, judged)
            for trial, total, rate, judged in zip(
                trials, totals.tolist(), rates, learner.validate(), strict=True
            )
        ]
        progress.note(
            told(totals[0], ended[0].row["val_metric"], trials[0].head.metric_name)
            if len(trials) == 1
            else f"{len(trials)} models at once, mean loss {totals.mean():.4g}"
        )
        yield ended


def _ended(trial: Trial, epoch: int, total: float, rate: float, judged: np.ndarray) -> Epoch:
    if not math.isfinite(total):
        raise UserError(
            f"training: the loss is not a number in epoch {epoch}; lower "
            f"training.learning_rate (now {trial.cfg.learning_rate})"
        )
    aims = trial.y[trial.parts["val"]]
    loss, metric = appraise(trial.head, judged, aims) if len(aims) else (math.nan, math.nan)
    row = {
        "epoch": epoch,
        "train_loss": total,
        "val_loss": loss,
        "val_metric": metric,
        "learning_rate": rate,
    }
    return Epoch(row, judged)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """How a training went.

    Attributes:
        best_epoch: the epoch that was kept, from 1.
        history: `Epoch.row` of every epoch.
        validated: float32 (epochs, validation cases, C), raw outputs after each epoch; empty unless
            the training had a fixed length.
    """

    best_epoch: int
    history: list[dict[str, float]]
    validated: np.ndarray


def train(
    trial: Trial,
    store: Store,
    length: int | None = None,
    watch: Callable[[dict[str, float]], None] | None = None,
) -> Fitted:
    """Train one network, which holds the weights of the epoch that was kept afterwards.

    The epoch that is best on the validation part is kept. With `length` the training runs for just
    so many epochs of the same schedule and the last one is kept: a validation part, if there is
    one, only looks on.

    Args:
        trial: the training.
        store: the bags.
        length: epochs to train for; None: until early stopping or `cfg.epochs`.
        watch: called with each row of the history.

    Raises:
        UserError: the loss is not a number, or no epoch can be told from another.
    """
    if not trial.network.learns_by_gradient:
        return _solved(trial, store)
    learner, cfg, validation = _Alone(trial, store), trial.cfg, trial.parts["val"]
    best, best_epoch, best_values = math.inf, 0, learner.snapshot()
    history: list[dict[str, float]] = []
    validated: list[np.ndarray] = []
    for (ended,) in epochs([trial], learner, store, length or cfg.epochs):
        history.append(ended.row)
        epoch, val_loss = len(history), ended.row["val_loss"]
        if watch is not None:
            watch(ended.row)
        if length is not None:
            best_epoch = epoch
            if len(validation):
                validated.append(ended.judged)
        elif math.isnan(val_loss):
            raise UserError(
                f"training: the {len(validation)} validation cases have no event, so that no epoch "
                "can be told from another; use another folds.validation_fraction, or more cases"
            )
        elif val_loss < best:
            best, best_epoch, best_values = val_loss, epoch, learner.snapshot()
        elif epoch - best_epoch >= cfg.patience:
            break
    if length is None:
        learner.restore(best_values)
    return Fitted(best_epoch, history, np.array(validated, dtype=np.float32))


def _solved(trial: Trial, store: Store) -> Fitted:
    """What `train` returns of a network whose `fit` was all there is: one epoch."""

    def said(part: str) -> np.ndarray:
        cases = trial.parts[part]
        limit = trial.cfg.max_tiles_per_case
        return predict(trial.network, store, cases, limit, trial.cfg.precision)

    learn = trial.parts["train"]
    loss, _ = appraise(trial.head, said("train"), trial.y[learn])
    judged = said("val") if len(trial.parts["val"]) else np.empty((0, 0), np.float32)
    return Fitted(1, [_ended(trial, 1, loss, math.nan, judged).row], judged[None])


class _Alone:
    """One trial as a `Learner`."""

    def __init__(self, trial: Trial, store: Store) -> None:
        self.trial, self.store = trial, store
        self.validation = Batches(store, trial.parts["val"], trial.cfg.max_tiles_per_case)
        self.targets = self._on_device(trial.y)
        self.answers = None if trial.answers is None else self._on_device(trial.answers.said)
        learned = [(n, p) for n, p in trial.network.named_parameters() if p.requires_grad]
        self.weights = [weight for _, weight in learned]
        shares = trial.network.rates()
        self.optimiser = adamw(self.weights, trial.cfg, [shares.get(n, 1.0) for n, _ in learned])
        self.drawn: Drawn = {}
        batches = math.ceil(len(trial.parts["train"]) / trial.cfg.batch_size)
        self.steps, self.ramp, self.rate = 0, trial.network.warm_up * batches, 0.0
        self.share = 0.0  # of the loss on plain models' answers

    def begin(self, epoch: int, drawn: Mapping[Order, Drawn], rates: Sequence[float]) -> None:
        if self.trial.answers is not None:
            self.share = self.trial.answers.share * remaining(epoch, len(self.trial.parts["train"]))
        self.drawn = drawn[self.trial.order_key()]
        self.trial.network.train()
        self.rate = rates[0]

    def step(self, chosen: Mapping[Order, np.ndarray]) -> Mapping[int, float]:
        (cases,) = chosen.values()
        network, head = self.trial.network, self.trial.head
        batch = gather(self.store, {case: self.drawn[case] for case in cases.tolist()})
        with precision(batch, self.trial.cfg.precision):
            output = network(batch)
            aim = self.targets[batch.cases]
            extra = network.extra_loss(output, batch, head.classes_of(aim))
        loss = self._loss(output.out.float(), aim, batch.cases)
        if extra is not None:
            loss = loss + extra
        self.optimiser.clear()
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, CLIP)
        self.steps += 1
        self.optimiser.step(self.rate * min(1.0, self.steps / max(1, self.ramp)))
        return {0: float(loss.detach())}

    def _on_device(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.store.device)

    def _loss(self, out: Tensor, aim: Tensor, cases: Tensor) -> Tensor:
        """Of the labels and, where there are any, of plain models' answers."""
        loss = self.trial.head.loss(out, aim)
        if self.answers is None:
            return loss
        told = answers_loss(self.trial.head, out, self.answers[cases])
        return (1 - self.share) * loss + self.share * told

    def validate(self) -> list[np.ndarray]:
        out = outputs(self.trial.network, self.validation, self.trial.cfg.precision)
        cases = self.trial.parts["val"].tolist()
        return [np.stack([out[case] for case in cases]) if cases else np.empty((0, 0), np.float32)]

    def snapshot(self) -> list[Tensor]:
        """A copy of all trained weights."""
        return [weight.detach().clone() for weight in self.weights]

    @torch.no_grad()
    def restore(self, values: Sequence[Tensor]) -> None:
        """Set all trained weights to a snapshot."""
        for weight, value in zip(self.weights, values, strict=True):
            weight.copy_(value)


def adamw(
    weights: Sequence[nn.Parameter], cfg: TrainingConfig, shares: Sequence[float] = ()
) -> AdamW:
    """AdamW whose decay acts on matrices only: biases, norms and tokens have no sense of scale.

    Args:
        weights: what learns.
        cfg: has the decay.
        shares: each weight's share of the learning rate; none: all of it.
    """
    grouped: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight, share in zip(weights, shares or [1.0] * len(weights), strict=True):
        grouped.setdefault((share, cfg.weight_decay * (weight.ndim > 1)), []).append(weight)
    groups = sorted(grouped.items(), key=lambda group: group[0], reverse=True)
    return AdamW([(own, decay) for (_, decay), own in groups], [share for (share, _), _ in groups])


def appraise(head: Head, out: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Loss and metric of a validation part's raw outputs float32 (n, C); NaN where undefined.

    Auxiliary endpoints do not count.

    Args:
        head: of the task.
        out: float32 (n, C).
        y: float32 (n, columns), targets.
    """
    head, out, y = own(head, out, y)
    if head.needed is not None and head.needed not in head.strata(y):
        return math.nan, math.nan
    loss = float(head.loss(torch.from_numpy(out), torch.from_numpy(y)))
    return loss, head.metric(out, y)


def objective(head: Head) -> Objective:
    """The task as a network may know it."""
    endpoints = []
    for name, one, outs, columns in head.places() if isinstance(head, MultiHead) else ():
        endpoints.append(Endpoint(name, objective(one), outs, columns))
    main = main_of(head)
    weights = main.weights if isinstance(main, ClassificationHead) else ()
    return Objective(type_of(main), head.loss, weights, tuple(endpoints))


def told(loss: float, metric: float, name: str) -> str:
    """An epoch as a log tells it.

    Args:
        loss: of the training part.
        metric: of the validation part; NaN where it is not defined.
        name: what the metric is called.
    """
    validation = "" if math.isnan(metric) else f", validation {name} {metric:.3f}"
    return f"loss {loss:.4g}{validation}"


def cosine(epoch: int, epochs: int) -> float:
    """The share of the learning rate in an epoch (from 1): half a cosine down to a tenth."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (epoch - 1) / epochs))


def tile_limit(cfg: TrainingConfig) -> int | None:
    """Most tiles of a bag that a training step reads."""
    limits = [n for n in (cfg.tiles_per_step, cfg.max_tiles_per_case) if n is not None]
    return min(limits, default=None)
