"""`faithful: true` is all that was published, term by term."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError

from pipeline.aggregators.network import Shape
from pipeline.bags.batch import Batch
from pipeline.bags.store import Store
from pipeline.config.models import PUBLISHED, ModelConfig, ShazamV1Model, ShazamV2Model
from pipeline.distillation.shazam_v1 import ShazamV1
from pipeline.distillation.shazam_v2 import ShazamV2
from tests.distillation import test_students
from tests.distillation.test_students import lesson

random_store = test_students.random_store

READ: TypeAdapter[Any] = TypeAdapter(ModelConfig)


def made(kind: str, shape: Shape, store: Store, **keys: Any) -> ShazamV1 | ShazamV2:
    torch.manual_seed(0)
    model = READ.validate_python({"kind": kind, **keys})
    net = (ShazamV1 if kind == "shazam_v1" else ShazamV2)(shape, model)
    net.fit(lesson(store, np.arange(30)))
    return net.eval()


@pytest.mark.parametrize("kind", ["shazam_v1", "shazam_v2"])
def test_the_word_alone_means_every_published_key(kind: str) -> None:
    model = READ.validate_python({"kind": kind, "faithful": True}).model_dump()
    for key, value in PUBLISHED[kind].items():
        given = {k: model[key][k] for k in value} if key == "distillation" else model[key]
        assert given == value, key
    long = {"kind": kind, **PUBLISHED[kind]}
    assert {**READ.validate_python(long).model_dump(), "faithful": True} == model


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"layers": 2}, "layers: with faithful: true it is 4, and 2"),
        ({"raw_features": False}, "raw_features: with faithful: true it is true"),
        (
            {"distillation": {"weight": 0.05}},
            r"distillation.weight: with faithful: true it is 0.01",
        ),
        ({"distillation": {"targets": "whitened"}}, "distillation.targets: with faithful"),
    ],
)
def test_another_value_is_refused(keys: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        READ.validate_python({"kind": "shazam_v2", "faithful": True, **keys})


def test_v1_compares_its_state_with_a_fixed_map_of_each_raw_feature(
    shape: Shape,
    batch: Batch,
    random_store: Store,
) -> None:
    net = made("shazam_v1", shape, random_store, faithful=True)
    assert net.goals is not None and not net.goals.requires_grad
    output = net(batch)
    loss = net.extra_loss(output, batch, None)
    wanted = 0.0
    for t in range(3):
        rows = batch.present[:, t]
        state, goal = output.levels["high"][rows], net.goals[batch.cases][rows, t]
        apart = 1 - F.cosine_similarity(state, goal, dim=-1)
        wanted += float((apart + F.huber_loss(state, goal, reduction="none").mean(-1)).mean())
    assert loss is not None
    assert float(loss.detach()) == pytest.approx(0.5 * wanted, rel=1e-5)
    means = torch.from_numpy(np.nan_to_num(random_store.means(1, "high"))).float()
    left = torch.linalg.lstsq(F.pad(means, (0, 1), value=1.0), net.goals[:, 1]).residuals
    assert float(left.sum()) < 1e-4  # it is linear in the feature


def test_v2_compares_each_level_with_its_own_tokens_a_hundredth(
    shape: Shape,
    batch: Batch,
    random_store: Store,
) -> None:
    net = made("shazam_v2", shape, random_store, faithful=True)
    output = net(batch)
    loss = net.extra_loss(output, batch, None)
    each = []
    for t, level in net.taught:
        rows = batch.present[:, t]
        state, token = output.levels[level][rows], output.tokens[t, level][rows]
        apart = 1 - F.cosine_similarity(state, token, dim=-1)
        each.append((apart + F.huber_loss(state, token, reduction="none").mean(-1)).mean())
    assert loss is not None
    assert float(loss) == pytest.approx(0.01 * float(torch.stack(each).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["shazam_v1", "shazam_v2"])
def test_features_are_read_as_they_are(
    kind: str,
    shape: Shape,
    batch: Batch,
    random_store: Store,
) -> None:
    loud = tuple({k: 100 * x for k, x in levels.items()} for levels in batch.features)
    sums = tuple({k: 100 * v for k, v in levels.items()} for levels in random_store.sums)
    squares = tuple({k: 1e4 * v for k, v in levels.items()} for levels in random_store.squares)
    store = dataclasses.replace(random_store, sums=sums, squares=squares)
    scaled = [made(kind, shape, one, d_model=16) for one in (random_store, store)]
    same = dataclasses.replace(batch, features=loud)
    torch.testing.assert_close(scaled[0](batch).out, scaled[1](same).out, atol=1e-3, rtol=1e-3)
    raw = [made(kind, shape, one, d_model=16, raw_features=True) for one in (random_store, store)]
    assert (raw[0](batch).out - raw[1](same).out).abs().max() > 0.01


def test_v1_has_the_published_parts() -> None:
    shape = Shape(("a", "b"), ({"high": 1280}, {"high": 1024}), 6)
    net = ShazamV1(shape, ShazamV1Model(kind="shazam_v1", faithful=True))
    assert len(net.blocks) == 5
    mapper = [type(layer).__name__ for layer in net.mappers[0] if type(layer).__name__ != "Dropout"]
    assert mapper == ["Linear", "LayerNorm", "ReLU", "Linear", "LayerNorm", "ReLU"]
    assert all(layer.p == 0 for layer in net.modules() if isinstance(layer, torch.nn.Dropout))


def test_a_mend_can_be_taken_alone(make_store: Callable[..., Store]) -> None:
    """Each published key is a key of its own, beside defaults for the rest."""
    for kind, keys in PUBLISHED.items():
        plain = READ.validate_python({"kind": kind})
        for key, value in keys.items():
            one = READ.validate_python({"kind": kind, key: value})
            moved = [k for k in type(one).model_fields if getattr(one, k) != getattr(plain, k)]
            assert moved in ([key], [])
    assert isinstance(plain, ShazamV2Model)
