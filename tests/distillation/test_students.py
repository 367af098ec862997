"""Shazam v1 and v2: the published size, and each published defect answered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.aggregators.network import Lesson, Objective, Shape, parameter_count
from pipeline.bags.batch import Batch
from pipeline.bags.store import Store
from pipeline.config.models import ShazamV1Model, ShazamV2Model
from pipeline.distillation.feature_loss import feature_loss
from pipeline.distillation.gate import drop
from pipeline.distillation.losses.cosine_huber import cosine_huber
from pipeline.distillation.shazam_v1 import ShazamV1
from pipeline.distillation.shazam_v2 import Level, ShazamV2
from pipeline.training.predict import Batches

TEACHERS = (1280, 1536, 1024, 1536, 1536)


def v2(shape: Shape, **keys: Any) -> ShazamV2:
    torch.manual_seed(0)
    keys = {"d_model": 16, **keys}
    return ShazamV2(shape, ShazamV2Model(kind="shazam_v2", **keys)).eval()


def v1(shape: Shape, **keys: Any) -> ShazamV1:
    torch.manual_seed(0)
    return ShazamV1(shape, ShazamV1Model(kind="shazam_v1", d_model=16, **keys)).eval()


def test_faithful_v2_has_the_published_number_of_parameters() -> None:
    dims = tuple({level: dim for level in ("low", "mid", "high")} for dim in TEACHERS)
    shape = Shape(tuple("abcde"), dims, 4)
    net = ShazamV2(shape, ShazamV2Model(kind="shazam_v2", faithful=True))
    assert parameter_count(net) == 4_216_469


@pytest.mark.parametrize("make", [v1, v2])
def test_what_lies_in_padding_and_in_absent_teachers_is_not_seen(
    make: Callable[[Shape], torch.nn.Module], shape: Shape, batch: Batch
) -> None:
    net = make(shape)
    changed = tuple(
        {k: x.masked_fill(mask[..., None], 1e3) for k, x in levels.items()}
        for levels, mask in zip(batch.features, batch.masks, strict=True)
    )
    before = net(batch).out
    after = net(dataclasses.replace(batch, features=changed)).out
    assert torch.isfinite(before).all()
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize("gate", ["after_norm", "before_norm", "off"])
def test_gates_sum_to_one_over_present_teachers_with_the_level(
    gate: str, shape: Shape, batch: Batch
) -> None:
    gates = v2(shape, gate=gate)(batch).gates
    has = {"low": [1, 0, 1], "mid": [1, 0, 0], "high": [1, 1, 1]}
    for level, weights in gates.items():
        seen = batch.present & torch.tensor(has[level], dtype=torch.bool)
        assert (weights[~seen] == 0).all()
        assert torch.allclose(weights.sum(1), torch.ones(5))


def gate_effect(kind: str) -> float:
    """How far the state moves when the gate goes from even to nearly one teacher."""
    torch.manual_seed(0)
    level = Level(4, 32, layers=2, heads=1, gate=kind)
    tokens, present = torch.randn(8, 4, 32) * 3, torch.ones(8, 4, dtype=torch.bool)

    class Fixed(torch.nn.Module):
        def __init__(self, weights: list[float]) -> None:
            super().__init__()
            self.weights = torch.tensor(weights)

        def forward(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
            return self.weights.expand(len(tokens), -1)

    level.gate = Fixed([0.25] * 4)  # type: ignore[assignment]
    even, _ = level(tokens, present)
    level.gate = Fixed([0.97, 0.01, 0.01, 0.01])  # type: ignore[assignment]
    one, _ = level(tokens, present)
    return float(((even - one).norm() / even.norm()).detach())


def test_the_gate_acts_after_normalisation_and_hardly_before_it() -> None:
    assert gate_effect("before_norm") < 0.05
    assert gate_effect("after_norm") > 0.5


def test_a_teacher_with_gate_zero_is_the_same_as_none() -> None:
    torch.manual_seed(0)
    level = Level(3, 16, layers=2, heads=1, gate="after_norm")
    tokens, present = torch.randn(4, 3, 16), torch.ones(4, 3, dtype=torch.bool)

    class Zero(torch.nn.Module):
        def forward(self, tokens: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
            return torch.tensor([0.4, 0.6, 0.0]).expand(len(tokens), -1)

    level.gate = Zero()  # type: ignore[assignment]
    before, _ = level(tokens, present)
    absent = present.clone()
    absent[:, 2] = False
    after, _ = level(tokens, absent)
    assert torch.allclose(before, after, atol=1e-5)


def test_drop_never_takes_a_cases_last_teacher() -> None:
    torch.manual_seed(0)
    present = torch.tensor([[True, False, False], [True, True, True]]).repeat(200, 1)
    kept = drop(present, 0.9)
    assert kept.any(1).all()
    assert not (kept & ~present).any()
    assert kept.sum() < present.sum()


def lesson(store: Store, train: np.ndarray) -> Lesson:
    y = np.zeros((len(store.cases), 1), np.float32)
    return Lesson(
        store=store,
        train=train,
        y=y,
        strata=np.zeros(len(train), np.int64),
        groups=train,
        task=Objective("regression", lambda out, y: out.mean() * 0),
        bags=lambda cases: Batches(store, cases, None),
        standardise=True,
        seed=0,
    )


@pytest.fixture
def random_store(make_store: Callable[..., Store], shape: Shape) -> Store:
    rng = np.random.default_rng(0)
    features = [{k: rng.normal(size=(40, d)) for k, d in dims.items()} for dims in shape.dims]
    present = np.ones((40, 3), bool)
    present[1, 1] = present[2, 1] = present[2, 2] = False
    return make_store(features, present)


@pytest.mark.parametrize(
    ("targets", "reached"), [("whitened", False), ("learned", False), ("attached", True)]
)
def test_gradients_reach_the_target_only_when_attached(
    targets: str, reached: bool, shape: Shape, batch: Batch, random_store: Store
) -> None:
    net = v2(shape, distillation={"weight": 1.0, "targets": targets})
    net.fit(lesson(random_store, np.arange(30)))
    output = net(batch)
    token = output.tokens[1, "high"]
    state = output.levels["high"]
    cut = dataclasses.replace(output, levels={k: v.detach() for k, v in output.levels.items()})
    loss = net.extra_loss(cut, batch, None)
    assert loss is not None
    if loss.requires_grad:
        (slope,) = torch.autograd.grad(loss, token, allow_unused=True, retain_graph=True)
    else:
        slope = None
    assert (slope is not None and bool(slope.abs().sum() > 0)) == reached
    full = net.extra_loss(output, batch, None)
    assert full is not None
    assert float(torch.autograd.grad(full, state)[0].abs().sum()) > 0


def test_whitened_targets_are_fitted_on_train_and_fixed(shape: Shape, random_store: Store) -> None:
    net = v2(shape, distillation={"weight": 1.0})
    net.fit(lesson(random_store, np.arange(30)))
    assert net.goals is not None
    assert net.widths is not None
    assert not net.goals.requires_grad
    for p, (t, _) in enumerate(net.taught):
        has = torch.from_numpy(random_store.present[:30, t])
        seen = net.goals[:30][has][:, p, : net.widths[p]]
        np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(seen.var(0, unbiased=False), 1, atol=1e-3)
        assert (net.goals[:, p, net.widths[p] :] == 0).all()


def test_the_loss_is_a_mean_over_levels_and_teachers(
    shape: Shape, batch: Batch, random_store: Store
) -> None:
    net = v2(shape, distillation={"weight": 1.0, "targets": "learned"})
    output = net(batch)
    total = net.extra_loss(output, batch, None)
    each = [
        feature_loss(
            output.levels[lv][:, None],
            output.tokens[t, lv].detach()[:, None],
            batch.present[:, t : t + 1],
            cosine_huber,
        )
        for t, lv in net.taught
    ]
    assert total is not None
    assert float(total.detach()) == pytest.approx(float(torch.stack(each).mean().detach()))


def test_weight_zero_adds_no_loss_and_no_readers(shape: Shape, batch: Batch) -> None:
    net = v2(shape, distillation={"weight": 0.0})
    assert net.extra_loss(net(batch), batch, None) is None
    assert len(net.readers) == 0


def test_levels_absent_everywhere_are_left_out(batch: Batch) -> None:
    shape = Shape(("a", "b"), ({"high": 8}, {"high": 5}), 2)
    net = v2(shape)
    assert net.levels == ("high",)
    assert net.facts()["levels"] == ["high"]


def test_attention_sums_to_one_over_real_tiles(shape: Shape, batch: Batch) -> None:
    attention = v2(shape)(batch).attention
    assert set(attention) == {(t, lv) for t, d in enumerate(shape.dims) for lv in d}
    for (t, _), weights in attention.items():
        assert (weights[batch.masks[t]] == 0).all()
        assert torch.allclose(weights.sum(1), batch.present[:, t].float(), atol=1e-5)


def test_feature_loss_ignores_cases_without_the_teacher() -> None:
    a, b = torch.randn(4, 2, 6), torch.randn(4, 2, 6)
    present = torch.tensor([[True, True], [True, True], [False, True], [False, True]])
    whole = feature_loss(a, b, present, cosine_huber)
    b[2:, 0] = 99.0
    assert torch.equal(feature_loss(a, b, present, cosine_huber), whole)
    assert float(feature_loss(a, b, torch.zeros(4, 2, dtype=torch.bool), cosine_huber)) == 0.0
    assert float(feature_loss(a, a, present, cosine_huber)) == pytest.approx(0.0, abs=1e-6)


def test_feature_loss_counts_only_the_numbers_a_pair_uses() -> None:
    a, b = torch.randn(3, 1, 4), torch.randn(3, 1, 4)
    present = torch.ones(3, 1, dtype=torch.bool)
    padded = [torch.cat([x, torch.zeros(3, 1, 5)], dim=2) for x in (a, b)]
    wide = feature_loss(padded[0], padded[1], present, cosine_huber, torch.tensor([4]))
    assert float(wide) == pytest.approx(float(feature_loss(a, b, present, cosine_huber)), rel=1e-5)
