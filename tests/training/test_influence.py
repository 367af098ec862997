"""The influence of tiles is the derivative that it says it is."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from pipeline.aggregators.network import Lesson, Network, Shape
from pipeline.bags.batch import Batch
from pipeline.bags.store import gather, whole
from pipeline.config.models import ModelConfig
from pipeline.training.classification import ClassificationHead
from pipeline.training.head import Head
from pipeline.training.influence import MORE, influences
from pipeline.training.losses.nll import NllHead
from pipeline.training.models import build_network
from pipeline.training.predict import Batches
from pipeline.training.regression import RegressionHead
from pipeline.training.survival import RiskHead
from tests.distillation.kinds import CASES, DIMS, REGRESSION, bags, store_of

HEAD = RegressionHead(("share",), (0.5,), (2.0,), "squared_error", {})
LOOKED = [3, 60]
TIMES = 20


def network(**model: Any) -> tuple[Network, Batch]:
    """A network with drawn weights, fitted, and two bags."""
    features, share = bags()
    store = store_of(features)
    config: ModelConfig = TypeAdapter(ModelConfig).validate_python(model)
    torch.manual_seed(0)
    made = build_network(config, Shape(("t0", "t1"), DIMS, 1))
    y = ((share - 0.5) / 2)[:, None].astype(np.float32)
    made.fit(
        Lesson(
            store=store,
            train=np.arange(CASES),
            y=y,
            strata=np.zeros(CASES, np.int64),
            groups=np.arange(CASES),
            task=REGRESSION,
            bags=lambda cases: Batches(store, cases, None),
            standardise=True,
            seed=0,
        )
    )
    return made.eval(), gather(store, whole(store, LOOKED, None))


def with_more(batch: Batch, tile: int) -> Batch:
    """Each case TIMES times over, and a tile once more."""
    rows = np.append(np.tile(np.arange(batch.masks[0].shape[1]), TIMES), tile)
    return dataclasses.replace(
        batch,
        features=tuple({k: x[:, rows] for k, x in levels.items()} for levels in batch.features),
        masks=tuple(mask[:, rows] for mask in batch.masks),
    )


MODELS = {
    "v2": partial(network, kind="shazam_v2", d_model=16),
    "abmil": partial(network, kind="single", teacher="t0", aggregator="gated_abmil", d_model=16),
    "clam": partial(network, kind="mean", aggregator="clam_sb", d_model=16),
    "concat": partial(network, kind="concat", d_model=16),
}


@pytest.mark.parametrize("model", MODELS)
def test_influence_is_what_a_little_more_of_the_tile_does(model: str) -> None:
    made, batch = MODELS[model]()
    _, found = influences(made, HEAD.lead, batch)
    told = torch.stack(list(found.values())).nansum(dim=0).numpy()
    real = ~batch.masks[0].numpy()
    seen = np.zeros(told.shape)
    with torch.no_grad():
        before = HEAD.lead(made(batch).out)
        for tile in range(told.shape[1]):
            change = HEAD.lead(made(with_more(batch, tile)).out) - before
            seen[:, tile] = MORE * change.numpy() * (TIMES * real.sum(axis=1) + 1)
    assert np.abs(told[real]).max() > 0.01
    np.testing.assert_allclose(told[real], seen[real], atol=0.02 * np.abs(seen[real]).max())
    np.testing.assert_allclose(told.sum(axis=1), 0, atol=1e-4)
    assert (told[~real] == 0).all()


def test_parameters_learn_again_and_nothing_is_remembered() -> None:
    made, batch = network(kind="shazam_v2", d_model=16)
    for p in made.parameters():
        p.requires_grad_(True)
    attention, found = influences(made, HEAD.lead, batch)
    assert all(p.requires_grad and p.grad is None for p in made.parameters())
    assert not any(part.requires_grad for part in (*attention.values(), *found.values()))


def test_a_network_that_pools_in_its_own_way_says_none() -> None:
    made, batch = network(kind="single", teacher="t0", aggregator="dsmil", d_model=16)
    _, found = influences(made, HEAD.lead, batch)
    assert all(part.isnan().all() for part in found.values())


@pytest.mark.parametrize(
    ("head", "out", "lead"),
    [
        (RiskHead("cox", {}), [[0.7], [-2.0]], [0.7, -2.0]),
        (NllHead((1.0,), alpha=0.0), [[0.0, 0.0]], [-0.75]),
        (
            ClassificationHead(("a", "b"), (1.0, 1.0), "cross_entropy", {}),
            [[2.0, -1.0], [0.0, 4.0]],
            [3.0, 4.0],
        ),
        (HEAD, [[0.5]], [1.0]),
    ],
)
def test_what_is_measured_follows_the_task(
    head: Head, out: list[list[float]], lead: list[float]
) -> None:
    found = head.lead(torch.tensor(out))
    np.testing.assert_allclose(found.numpy(), lead, atol=1e-6)
