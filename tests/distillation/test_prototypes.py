"""Shares of prototypes: what a mean cannot say, whatever is padded, missing or held out."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.aggregators.network import Lesson, Shape
from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store, gather, whole
from pipeline.distillation.anchor import Anchor
from pipeline.distillation.ground import Kind
from pipeline.distillation.prototypes import KINDS, Prototypes
from pipeline.distillation.tiles import sharing, tile_groups
from tests.distillation.kinds import CASES, DIMS, REGRESSION, TILES, WIDTHS, bags, store_of

TRAIN = np.arange(50)


def fitted(store: Store, seed: int = 0) -> tuple[Prototypes, Scaler]:
    scaler, prototypes = Scaler(DIMS), Prototypes(DIMS, ("high",))
    scaler.fit(store, TRAIN)
    groups = tile_groups(store, TRAIN, scaler, prototypes.reads, seed)
    prototypes.fit(groups[0] if groups else None, seed)
    return prototypes, scaler


def batch_of(store: Store, cases: list[int]) -> Batch:
    return gather(store, whole(store, cases, None))


def test_a_probe_of_shares_says_what_means_cannot() -> None:
    features, share = bags()
    store = store_of(features)
    y = ((share - share.mean()) / share.std())[:, None].astype(np.float32)
    lesson = Lesson(store, TRAIN, y, np.zeros(len(TRAIN), np.int64), REGRESSION, True, 0)
    agreed = {}
    kinds: tuple[Kind, ...] = ("both", "all")
    for kind in kinds:
        scaler, anchor = Scaler(DIMS), Anchor(Shape(("t0", "t1"), DIMS, 1), ("high",), kind)
        scaler.fit(store, TRAIN)
        anchor.fit(lesson, scaler)
        batch = batch_of(store, list(range(CASES)))
        said = anchor(scaler(batch), batch)[:, 0].numpy()
        held_out = np.arange(len(TRAIN), CASES)
        agreed[kind] = float(np.corrcoef(said[held_out], share[held_out])[0, 1])
    assert agreed["all"] > 0.9 > 0.6 > agreed["both"]
    assert anchor.facts()["parts"]["prototypes"] > 0
    again = Anchor(Shape(("t0", "t1"), DIMS, 1), ("high",))
    again.load_state_dict(anchor.state_dict())
    np.testing.assert_array_equal(again(scaler(batch), batch)[:, 0].numpy(), said)


def test_shares_sum_to_one_and_do_not_depend_on_padding() -> None:
    store = store_of(bags()[0])
    prototypes, scaler = fitted(store)
    apart = [prototypes(scaler(b), b) for b in (batch_of(store, [i]) for i in range(6))]
    batch = batch_of(store, list(range(6)))
    for own in batch.features:
        own["high"][batch.masks[0]] = 7.0
    together = prototypes(scaler(batch), batch)
    assert together.shape == (6, KINDS)
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)
    assert torch.allclose(together.square().sum(1), torch.ones(6), atol=1e-5)
    found, has = prototypes.shares(store, np.arange(6), scaler)
    assert has.all()
    np.testing.assert_allclose(found, together.numpy(), atol=1e-5)


def test_prototypes_come_from_the_training_cases_and_the_seed() -> None:
    features, _ = bags()
    first, _ = fitted(store_of(features))
    for own in features:
        own[CASES - 1] = own[CASES - 1] * 50
    again, _ = fitted(store_of(features))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.get_buffer(name)), name
    for own in features:
        own[0] = own[0] * 50
    moved, _ = fitted(store_of(features))
    assert not torch.equal(first.centres, moved.centres)


def test_a_case_without_one_of_the_teachers_has_no_shares_and_disturbs_no_other() -> None:
    features, _ = bags()
    longest = int(np.argmax([len(tiles) for tiles in features[0]]))
    features[1][longest] = features[1][longest][:0]
    store = store_of(features)
    assert sharing(store.sizes) == [[0, 1]]
    prototypes, scaler = fitted(store)
    other = 0 if longest else 1
    batch = batch_of(store, [longest, other])
    assert prototypes.has(batch.present).tolist() == [False, True]
    alone = batch_of(store, [other])
    both, one = prototypes(scaler(batch), batch), prototypes(scaler(alone), alone)
    assert torch.allclose(both[1], one[0], atol=1e-5)


def test_more_kinds_than_different_tiles_leave_places_empty() -> None:
    few = [[np.eye(width)[np.arange(10) % 3] for _ in range(CASES)] for width in WIDTHS]
    prototypes, scaler = fitted(store_of([[x.astype(np.float32) for x in own] for own in few]))
    shares, _ = prototypes.shares(store_of(few), np.arange(2), scaler)
    assert np.isfinite(shares).all()
    assert (shares > 0.01).sum(axis=1).tolist() == [3, 3]
    np.testing.assert_allclose((shares**2).sum(axis=1), 1, atol=1e-5)


def test_tiles_that_are_all_the_same_have_no_prototypes() -> None:
    store = store_of([[np.ones((TILES, w), np.float32) for _ in range(CASES)] for w in WIDTHS])
    prototypes, scaler = fitted(store)
    assert not prototypes.has(batch_of(store, [0, 1]).present).any()
    shares, has = prototypes.shares(store, np.arange(4), scaler)
    assert not has.any()
    assert not shares.any()


def test_teachers_that_no_case_has_both_of_are_not_seen_together() -> None:
    features, _ = bags()
    for t, own in enumerate(features):
        own[t::2] = [tiles[:0] for tiles in own[t::2]]
    store = store_of(features)
    prototypes, scaler = fitted(store)
    assert prototypes.used.tolist() == [True, False]
    shares, has = prototypes.shares(store, np.arange(4), scaler)
    assert has.tolist() == [False, True, False, True]
    np.testing.assert_allclose((shares**2).sum(axis=1), has, atol=1e-5)
