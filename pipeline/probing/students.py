"""Students on single tiles: a tile's teachers are its tokens (Shazam v1 for tile classification).

The networks, their distillation and the loop are those of every other training; a tile is a bag of
one. The epoch is chosen on cases that are held out of the fold's training part, never on its test
part (in the published code the test part chose it).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.aggregators.network import Lesson, Network, Shape, parameter_count
from pipeline.bags.store import Store
from pipeline.bags.tiles import tile_store
from pipeline.config.models import ModelConfig, ShazamV1Model, ShazamV2Model
from pipeline.config.training import TrainingConfig
from pipeline.probing.gather_together import Features
from pipeline.probing.rounds import Split
from pipeline.training.classification import ClassificationHead
from pipeline.training.loop import Trial, objective, train
from pipeline.training.models import build_network
from pipeline.training.predict import Batches, predict

MODELS: dict[str, ModelConfig] = {
    "shazam_v1": ShazamV1Model(kind="shazam_v1"),
    "shazam_v2": ShazamV2Model(kind="shazam_v2"),
}
SETTINGS = {"batch_size": 64, "learning_rate": 1e-3, "weight_decay": 1e-3, "patience": 8}
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
    for number, (train_part, test) in enumerate(folds):
        draw = seed * 1000 + number
        network = _train(kind, store, y, groups, classes, train_part, epochs, draw)
        size = parameter_count(network)
        out = torch.from_numpy(predict(network, store, test, None))
        said[test] = out.softmax(1).numpy()
    return said, size


def _levels(kind: str, levels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"high": levels["high"]} if kind == "shazam_v1" else levels


def _train(
    kind: str,
    store: Store,
    y: np.ndarray,
    groups: np.ndarray,
    classes: int,
    train_part: np.ndarray,
    epochs: int,
    seed: int,
) -> Network:
    """A network with the weights of its best epoch on held-out cases."""
    learn, held_out = _held_out(train_part, groups, np.random.default_rng(seed))
    names = tuple(str(c) for c in range(classes))
    head = ClassificationHead(names, (1.0,) * classes, "cross_entropy", {})
    shape = Shape(
        tuple(t.name for t in store.teachers), tuple(t.dims for t in store.teachers), head.outputs
    )
    torch.manual_seed(seed)
    network = build_network(MODELS[kind], shape)
    target = y[:, None].astype(np.float32)
    network.fit(
        Lesson(
            store=store,
            train=learn,
            y=target,
            strata=head.strata(target[learn]),
            groups=groups[learn],
            task=objective(head),
            bags=lambda tiles: Batches(store, tiles, None),
            standardise=True,
            seed=seed,
        )
    )
    cfg = TrainingConfig(epochs=epochs, **SETTINGS)
    train(Trial(network, head, target, {"train": learn, "val": held_out}, cfg, seed), store)
    return network


def _held_out(
    train_part: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Tiles to learn from, and tiles of other cases to choose the epoch by."""
    cases = rng.permutation(np.unique(groups[train_part]))
    chosen = cases[: max(1, round(HELD_OUT * len(cases)))]
    apart = np.isin(groups[train_part], chosen)
    return train_part[~apart], train_part[apart]
