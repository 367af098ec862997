"""Models of several levels: an aggregator for each, side by side or averaged."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from pipeline.aggregators.fusion import Concat, Mean, PerTeacher
from pipeline.aggregators.network import Shape
from pipeline.bags.batch import Batch
from tests.distillation import conftest

shape, batch = conftest.shape, conftest.batch

ABMIL: dict[str, Any] = {"d_model": 8, "dropout": 0.0}


def mean(shape: Shape) -> Mean:
    torch.manual_seed(0)
    return Mean(shape, "abmil", ABMIL).eval()


def concat(shape: Shape) -> Concat:
    torch.manual_seed(0)
    return Concat(shape, "abmil", {"dropout": 0.0, "d_model": 8}, 8, 0.0).eval()


def test_each_teacher_and_level_has_an_aggregator_of_its_own(shape: Shape) -> None:
    assert len(mean(shape).aggregators) == sum(map(len, shape.dims)) == 6
    assert concat(shape).head[2].in_features == 6 * 8


def test_a_mean_is_that_of_the_heads_that_a_case_has(
    shape: Shape,
    batch: Batch,
) -> None:
    net = mean(shape)
    said = torch.stack([bag.out for bag in net.pooled(batch)], dim=1)
    out = net(batch).out
    torch.testing.assert_close(out[0], said[0].mean(0))
    torch.testing.assert_close(out[2], said[2, :3].mean(0))  # it has the first teacher alone
    assert set(net(batch).attention) == set(net.pairs)


@pytest.mark.parametrize("make", [mean, concat])
def test_every_level_is_read(
    make: Any,
    shape: Shape,
    batch: Batch,
) -> None:
    net: PerTeacher = make(shape)
    before = net(batch).out
    for t, level in net.pairs:
        features = [dict(levels) for levels in batch.features]
        features[t][level] = features[t][level] + 1
        after = net(dataclasses.replace(batch, features=tuple(features))).out
        assert (after[0] - before[0]).abs().max() > 1e-5, (t, level)


def test_one_level_is_the_model_that_it_was(
    shape: Shape,
    batch: Batch,
) -> None:
    high = Shape(shape.teachers, tuple({"high": dims["high"]} for dims in shape.dims), 4)
    kept = tuple({"high": levels["high"]} for levels in batch.features)
    net = mean(high)
    assert [name for name, _ in net.aggregators.named_children()] == ["0", "1", "2"]
    assert net(dataclasses.replace(batch, features=kept)).out.shape == (5, 4)
