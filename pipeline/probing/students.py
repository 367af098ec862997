"""Students on single tiles: a tile's teachers are its tokens (Shazam v1 for tile classification).

The networks and their distillation are those of `pipeline.distillation`; a tile is a bag of one.
Trained with AdamW and cross-entropy; the epoch is chosen on cases that are held out of the fold's
training part, never on its test part (in the published code the test part chose it).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.aggregators.network import Lesson, Network, Objective, Shape, parameter_count
from pipeline.bags.batch import Batch
from pipeline.bags.store import Store, gather, whole
from pipeline.bags.tiles import tile_store
from pipeline.config.models import ShazamV1Model, ShazamV2Model
from pipeline.distillation.shazam_v1 import ShazamV1
from pipeline.distillation.shazam_v2 import ShazamV2
from pipeline.probing.gather_together import Features
from pipeline.probing.rounds import Split

BATCH = 64
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-3
PATIENCE = 8
HELD_OUT = 0.2  # of the cases of a training part


def student_probabilities(
    kind: str,
    features: Features,
    y: np.ndarray,
    groups: np.ndarray,
    classes: int,
    folds: Sequence[Split],
    epochs: int,
    seed: int,
) -> tuple[np.ndarray, int]:
    """Held-out class probabilities of a student over all folds.

    Args:
        kind: `shazam_v1` or `shazam_v2`.
        features: teacher -> level -> (N, d).
        y: int64 (N,), class numbers.
        groups: int64 (N,), cases.
        classes: how many.
        folds: training and test tiles of each.
        epochs: at most.
        seed: of weights, held-out cases and order.

    Returns:
        float64 (N, classes), 0 where no fold tests a tile; and the trained parameters.
    """
    read = {t: _levels(kind, levels) for t, levels in features.items()}
    store = tile_store([str(i) for i in range(len(y))], read, torch.device("cpu"))
    said = np.zeros((len(y), classes))
    size = 0
    for number, (train, test) in enumerate(folds):
        draw = seed * 1000 + number
        network = _train(kind, store, y, groups, classes, train, epochs, draw)
        size = parameter_count(network)
        said[test] = _answers(network, store, test).softmax(1).numpy()
    return said, size


def _levels(kind: str, levels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"high": levels["high"]} if kind == "shazam_v1" else levels


def _network(kind: str, shape: Shape) -> Network:
    if kind == "shazam_v1":
        return ShazamV1(shape, ShazamV1Model(kind="shazam_v1"))
    return ShazamV2(shape, ShazamV2Model(kind="shazam_v2"))


def _train(
    kind: str,
    store: Store,
    y: np.ndarray,
    groups: np.ndarray,
    classes: int,
    train: np.ndarray,
    epochs: int,
    seed: int,
) -> Network:
    """A network with the weights of its best epoch on held-out cases."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    learn, held_out = _held_out(train, groups, rng)
    shape = Shape(
        tuple(t.name for t in store.teachers), tuple(t.dims for t in store.teachers), classes
    )
    network = _network(kind, shape)
    target = y[:, None].astype(np.float32)
    task = Objective("classification", _loss, (1.0,) * classes)
    network.fit(
        Lesson(
            store=store,
            train=learn,
            y=target,
            strata=y[learn],
            groups=groups[learn],
            task=task,
            bags=lambda tiles: _batches(store, tiles),
            standardise=True,
            seed=seed,
        )
    )
    labels = torch.from_numpy(y)
    step = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    best, waited = np.inf, 0
    kept = copy.deepcopy(network.state_dict())
    for _ in range(epochs):
        network.train()
        for batch in _batches(store, rng.permutation(learn)):
            output = network(batch)
            aim = labels[batch.cases]
            loss = F.cross_entropy(output.out, aim)
            extra = network.extra_loss(output, batch, aim)
            step.zero_grad()
            (loss if extra is None else loss + extra).backward()
            step.step()
        judged = float(F.cross_entropy(_answers(network, store, held_out), labels[held_out]))
        if judged < best:
            best, waited, kept = judged, 0, copy.deepcopy(network.state_dict())
        elif (waited := waited + 1) >= PATIENCE:
            break
    network.load_state_dict(kept)
    return network


def _held_out(
    train: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Tiles to learn from, and tiles of other cases to choose the epoch by."""
    cases = rng.permutation(np.unique(groups[train]))
    chosen = cases[: max(1, round(HELD_OUT * len(cases)))]
    apart = np.isin(groups[train], chosen)
    return train[~apart], train[apart]


def _loss(out: Tensor, aim: Tensor) -> Tensor:
    return F.cross_entropy(out, aim[:, 0].long())


def _batches(store: Store, tiles: np.ndarray) -> Iterator[Batch]:
    """Batches of at least two tiles."""
    for part in np.array_split(tiles, max(1, len(tiles) // BATCH)):
        yield gather(store, whole(store, part.tolist(), None))


@torch.no_grad()
def _answers(network: Network, store: Store, tiles: np.ndarray) -> Tensor:
    """Logits float32 (n, classes), in the order of `tiles`."""
    network.eval()
    return torch.cat([network(batch).out for batch in _batches(store, tiles)])
