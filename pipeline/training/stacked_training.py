"""Many small trainings as one: parameters stacked, one forward pass for all of them.

The trainings of a nested cross-validation differ in their cases, learning rate and weight decay,
not in their shape. Stacked along a first dimension (`torch.func`), a step of all of them costs
about as many operations as a step of one. That pays where the operations are small or launched on a
GPU; on a CPU a model that reads every tile spends its time on the arithmetic, which stacking does
not lessen, and is trained in turn instead (`pays`).

Every training keeps its own order, tile draws, learning rate, gradient norm and moments, as in
`pipeline.training.loop.train`, whose numbers it gives; only the draws of dropout are other ones.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pipeline.aggregators.base import Aggregator
from pipeline.aggregators.fusion import Mean
from pipeline.aggregators.network import Network
from pipeline.bags.batch import Batch
from pipeline.bags.store import Store, gather, whole
from pipeline.training.loop import CLIP, Drawn, Fitted, Order, Trial, epochs, tile_limit
from pipeline.training.predict import Batches, precision

STACKED_VALUES = 2**28  # feature values of a stacked batch on a GPU: 1 GiB in float32
REDUCED_CASES = 64  # cases whose tiles are in memory at once while they are reduced


def alike(trial: Trial) -> tuple[Any, ...]:
    """Trials whose networks can be stacked have the same key."""
    state = trial.network.state_dict()
    shapes = tuple((name, tuple(value.shape)) for name, value in state.items())
    return type(trial.network).__name__, shapes, trial.cfg.standardise, repr(trial.network)


def pays(trials: Sequence[Trial], store: Store) -> bool:
    """Whether training these trials together is worth it, and possible."""
    first = trials[0]
    if len(trials) < 2 or not isinstance(first.network, Mean):
        return False  # others have losses or last fits of their own
    if reduces(first.network):
        return True
    models = first.network.aggregators
    if store.device.type != "cuda" or any(_overrides(m, "instance_loss") for m in models):
        return False
    limit = tile_limit(first.cfg)
    tiles = store.sizes.max(0) if limit is None else np.minimum(store.sizes.max(0), limit)
    widths = np.array([sum(teacher.dims.values()) for teacher in store.teachers])
    return len(trials) * first.cfg.batch_size * float(tiles @ widths) <= STACKED_VALUES


def reduces(network: Mean) -> bool:
    """Whether all its aggregators see a bag as one vector."""
    return all(_overrides(model, "reduce") for model in network.aggregators)


def _overrides(model: nn.Module, method: str) -> bool:
    return getattr(type(model), method) is not getattr(Aggregator, method)


def train_together(trials: Sequence[Trial], store: Store, length: int) -> list[Fitted]:
    """Train all trials for a fixed number of epochs.

    Args:
        trials: fitted networks (`Network.fit`), alike.
        store: the bags, the same for all.
        length: epochs.

    Returns:
        for each what `train` with the same `length` returns. The networks keep their first weights.

    Raises:
        UserError: a loss is not a number.
    """
    stack = _Stack(trials, store)
    ended = list(epochs(trials, stack, store, length))  # by epoch and trial
    return [
        Fitted(
            length,
            [each[m].row for each in ended],
            np.array([each[m].judged for each in ended], dtype=np.float32),
        )
        for m in range(len(trials))
    ]


class _Stack:
    """Trials as a `Learner`: stacked parameters, AdamW on slices of them, and the bags as they read
    them."""

    def __init__(self, trials: Sequence[Trial], store: Store) -> None:
        self.trials, self.store, self.sizes = trials, store, store.sizes
        first = trials[0].network
        assert isinstance(first, Mean)
        self.reduced = reduces(first)
        self.base = copy.deepcopy(first).to("meta")
        values, buffers = stack_module_state([trial.network for trial in trials])
        self.buffers = {k: v.to(store.device) for k, v in buffers.items()}
        self.values = {k: v.detach().to(store.device).requires_grad_() for k, v in values.items()}
        self.slopes = {k: torch.zeros_like(v) for k, v in self.values.items()}
        self.optimiser = self._adamw()
        self.targets = [torch.from_numpy(trial.y).to(store.device) for trial in trials]
        self.rates: Sequence[float] = ()
        self.source: Mapping[Any, Any] = {}
        self.views: dict[bytes, list[int]] = {}
        for m, trial in enumerate(trials):
            self.views.setdefault(trial.parts["val"].tobytes() + _key(trial), []).append(m)
        self.watched = {key: self._watched(trials[rows[0]]) for key, rows in self.views.items()}
        self.tables: dict[Any, dict[tuple[int, str], Tensor]] = {}
        if self.reduced:  # bags come scaled
            self.buffers = {
                name: torch.full_like(v, SCALED[name.split(".")[1].split("_")[0]])
                if name.startswith("scaler.")
                else v
                for name, v in self.buffers.items()
            }

    # --- bags ---

    def begin(self, epoch: int, drawn: Mapping[Order, Drawn], rates: Sequence[float]) -> None:
        self.rates = rates
        self.source = self._reduced(drawn) if self.reduced else drawn

    def _reduced(self, drawn: Mapping[Order, Drawn]) -> Mapping[Any, Any]:
        """This epoch's tiles as one vector a bag, by order key."""
        owner = {trial.order_key(): trial for trial in self.trials}
        for key, rows in drawn.items():
            limit = tile_limit(owner[key].cfg)
            whole_bags = limit is None or bool((self.sizes[list(rows)] <= limit).all())
            if key not in self.tables or not whole_bags:
                self.tables[key] = self._reduce(owner[key].network, rows)
        return self.tables

    @torch.no_grad()
    def _reduce(
        self, network: Network, rows: Mapping[int, Sequence[np.ndarray]]
    ) -> dict[tuple[int, str], Tensor]:
        """(teacher, level) -> (all cases, d): scaled and reduced bags of the given cases."""
        assert isinstance(network, Mean)
        table = {
            (t, level): torch.zeros(
                len(self.store.cases), network.shape.dims[t][level], device=self.store.device
            )
            for t, level in network.pairs
        }
        cases = list(rows)
        for start in range(0, len(cases), REDUCED_CASES):
            part = cases[start : start + REDUCED_CASES]
            batch = gather(self.store, {case: rows[case] for case in part})
            scaled = network.scaler(batch)
            for (t, level), model in zip(network.pairs, network.aggregators, strict=True):
                assert isinstance(model, Aggregator)
                vectors = model.reduce(scaled[t][level], batch.masks[t])
                assert vectors is not None
                table[t, level][batch.cases] = vectors
        return table

    def _one_tile(self, table: Mapping[tuple[int, str], Tensor], cases: np.ndarray) -> Batch:
        """Bags of one tile each, the reduced vector."""
        rows = torch.from_numpy(cases).to(self.store.device)
        present = torch.from_numpy(self.store.present[cases]).to(self.store.device)
        teachers = range(len(self.store.teachers))
        return Batch(
            cases=rows,
            features=tuple(
                {level: x[rows][:, None] for (s, level), x in table.items() if s == t}
                for t in teachers
            ),
            masks=tuple(~present[:, t : t + 1] for t in teachers),
            rows=tuple(torch.zeros(len(cases), 1, dtype=torch.int64) for _ in teachers),
            present=present,
        )

    def _watched(self, trial: Trial) -> list[Batch] | Batches:
        """The validation bags of a trial."""
        val, limit = trial.parts["val"], trial.cfg.max_tiles_per_case
        if not self.reduced:
            return Batches(self.store, val, limit)
        table = self._reduce(trial.network, whole(self.store, val.tolist(), limit))
        return [self._one_tile(table, val)]

    # --- passes ---

    def _forward(self, chosen: Mapping[Order, np.ndarray]) -> Tensor:
        """Outputs (trials, B, C) of one batch for each trial; rows beyond its size are padding."""
        made = {
            key: self._one_tile(self.source[key], cases)
            if self.reduced
            else gather(self.store, {case: self.source[key][case] for case in cases.tolist()})
            for key, cases in chosen.items()
        }
        any_batch = next(iter(made.values()))
        each = [made.get(trial.order_key(), any_batch) for trial in self.trials]
        self.base.train()
        with precision(any_batch, self.trials[0].cfg.precision):
            call = vmap(self._call, randomness="different")
            return call(self.values, self.buffers, *_stacked(each))

    @torch.no_grad()
    def validate(self) -> list[np.ndarray]:
        """Raw outputs float32 (n, C) of each trial's validation part."""
        self.base.eval()
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(self.trials)
        for key, models in self.views.items():
            rows = torch.tensor(models, device=self.store.device)
            values = {k: v[rows] for k, v in self.values.items()}
            buffers = {k: v[rows] for k, v in self.buffers.items()}
            place: dict[int, np.ndarray] = {}
            for batch in self.watched[key]:
                with precision(batch, self.trials[0].cfg.precision):
                    call = vmap(self._call, in_dims=(0, 0, None, None, None))
                    out = call(values, buffers, batch.features, batch.masks, batch.present)
                columns = out.float().transpose(0, 1).cpu().numpy()  # (B, models, C)
                place.update(zip(batch.cases.tolist(), columns, strict=True))
            cases = self.trials[models[0]].parts["val"].tolist()
            judged = np.stack([place[case] for case in cases])
            for i, m in enumerate(models):
                found[m] = np.ascontiguousarray(judged[:, i])
        return found

    def _call(
        self,
        values: dict[str, Tensor],
        buffers: dict[str, Tensor],
        features: tuple[dict[str, Tensor], ...],
        masks: tuple[Tensor, ...],
        present: Tensor,
    ) -> Tensor:
        none = torch.zeros(present.shape[0], dtype=torch.int64)
        batch = Batch(none, features, masks, (), present)
        return functional_call(self.base, (values, buffers), (batch,)).out

    def step(self, chosen: Mapping[Order, np.ndarray]) -> Mapping[int, float]:
        outs = self._forward(chosen)
        losses: dict[int, Tensor] = {}
        for m, trial in enumerate(self.trials):
            cases = chosen.get(trial.order_key())
            if cases is not None:
                aim = self.targets[m][torch.from_numpy(cases).to(self.store.device)]
                losses[m] = trial.head.loss(outs[m][: len(cases)].float(), aim)
        active = [m in losses for m in range(len(outs))]
        self._update(torch.stack(list(losses.values())).sum(), active)
        return {m: float(loss.detach()) for m, loss in losses.items()}

    def _update(self, loss: Tensor, active: Sequence[bool]) -> None:
        """One step of AdamW, each trial with its own gradient norm and rate.

        A trial without a batch in this step stays as it is, its moments too.
        """
        slopes = torch.autograd.grad(loss, list(self.values.values()))
        norm = torch.stack([g.flatten(1).square().sum(1) for g in slopes]).sum(0).sqrt()
        shrink = (CLIP / (norm + 1e-6)).clamp(max=1.0)
        for kept, slope in zip(self.slopes.values(), slopes, strict=True):
            torch.mul(slope, shrink.view(-1, *[1] * (slope.ndim - 1)), out=kept)
        for group in self.optimiser.param_groups:
            group["lr"] = self.rates[group["places"][0][0]]
            for weight, (m, name) in zip(group["params"], group["places"], strict=True):
                weight.grad = self.slopes[name][m] if active[m] else None
        self.optimiser.step()

    def _adamw(self) -> torch.optim.AdamW:
        """AdamW on each trial's slices of the stacked parameters, which it changes in place.

        Decay acts on matrices only, as in `pipeline.training.loop.adamw`. Slices of the same
        schedule and decay share a group; each group is one call.
        """
        places: dict[tuple[float, int, float], list[tuple[int, str]]] = {}
        for m, trial in enumerate(self.trials):
            cfg = trial.cfg
            for name, value in self.values.items():
                decay = cfg.weight_decay if value[m].ndim > 1 else 0.0
                key = (cfg.learning_rate, cfg.epochs, decay)
                places.setdefault(key, []).append((m, name))
        groups = [
            {
                "params": [self.values[name].detach()[m] for m, name in found],
                "weight_decay": decay,
                "places": found,
            }
            for (_, _, decay), found in places.items()
        ]
        return torch.optim.AdamW(groups, fused=True)


SCALED = {"shift": 0.0, "scale": 1.0, "limit": math.inf}  # a scaler that does nothing


def _key(trial: Trial) -> bytes:
    """Trials with the same training cases and features have the same scaler."""
    return trial.parts["train"].tobytes() + repr(trial.cfg.max_tiles_per_case).encode()


def _stacked(
    each: Sequence[Batch],
) -> tuple[tuple[dict[str, Tensor], ...], tuple[Tensor, ...], Tensor]:
    """Batches of several trials side by side, padded to the largest: features, masks, present."""
    b = max(len(batch) for batch in each)
    features, masks = [], []
    for t in range(len(each[0].masks)):
        n = max(batch.masks[t].shape[1] for batch in each)
        masks.append(torch.stack([_padded(x.masks[t], b, n, True) for x in each]))
        features.append(
            {
                level: torch.stack([_padded(x.features[t][level], b, n, 0.0) for x in each])
                for level in each[0].features[t]
            }
        )
    present = torch.stack([_padded(x.present, b, x.present.shape[1], False) for x in each])
    return tuple(features), tuple(masks), present


def _padded(x: Tensor, b: int, n: int, value: float) -> Tensor:
    if x.shape[0] == b and x.shape[1] == n:
        return x
    out = x.new_full((b, n, *x.shape[2:]), value)
    out[: x.shape[0], : x.shape[1]] = x
    return out
