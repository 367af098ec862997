"""Components of tiles: what they say, of which cases, and when there are none."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.bags.scale import Scaler
from pipeline.distillation import tiles as module
from pipeline.distillation.tiles import TileComponents, sharing, tile_groups
from tests.distillation.kinds import CASES, DIMS, bags, store_of

READS = [(0, "high"), (1, "high")]
TRAIN = np.arange(50)


def components(features: list[list[np.ndarray]], train: np.ndarray = TRAIN) -> TileComponents:
    store, scaler = store_of(features), Scaler(DIMS)
    scaler.fit(store, train)
    (found,) = tile_groups(store, train, scaler, READS, 0)
    return found


def test_maps_lead_to_components_of_mean_0_and_variance_1() -> None:
    features, _ = bags()
    found = components(features)
    np.testing.assert_allclose(found.seen.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.seen.std(axis=0), 1, atol=1e-4)
    assert (np.diff(found.variances) <= 0).all()
    scaler = Scaler(DIMS)
    scaler.fit(store_of(features), TRAIN)
    first = [own[0] for own in features]
    said = found.offset.copy()
    for t, x in enumerate(first):
        shift, scale = (scaler.get_buffer(f"{k}_{t}_high").numpy() for k in ("shift", "scale"))
        said = said + (x * scale + shift) @ found.maps[t, "high"]
    np.testing.assert_allclose(said, found.seen[found.owner == 0], atol=1e-3)
    assert found.tiles == pytest.approx(np.mean([len(features[0][i]) for i in TRAIN]))


def test_what_differs_within_a_case_is_told_from_what_differs_between_cases() -> None:
    """One direction is the same in all tiles of a case, the others are drawn for every tile."""
    rng = np.random.default_rng(0)
    features = [[], []]
    for _ in range(CASES):
        level = rng.normal()
        tiles = rng.normal(size=(20, 15)).astype(np.float32)
        tiles[:, 0] = 3 * level
        features[0].append(tiles[:, :6])
        features[1].append(tiles[:, 6:])
    found = components(features)
    values = np.linalg.eigvalsh(found.within)
    assert values[0] < 0.01
    assert values[1:] == pytest.approx(1, abs=0.15)


def test_very_many_cases_are_sampled_with_several_tiles_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SAMPLE", 80)
    found = components(bags()[0])
    assert len(np.unique(found.owner)) == 20
    assert (np.bincount(found.owner) == module.FEWEST).all()


def test_features_that_never_vary_have_no_components() -> None:
    same = [[np.ones((12, d["high"]), np.float32) for _ in range(CASES)] for d in DIMS]
    store, scaler = store_of(same), Scaler(DIMS)
    scaler.fit(store, TRAIN)
    assert tile_groups(store, TRAIN, scaler, READS, 0) == []


def test_teachers_with_other_tiles_have_components_of_their_own() -> None:
    features, _ = bags()
    features[1] = [tiles[1:] for tiles in features[1]]
    store, scaler = store_of(features), Scaler(DIMS)
    scaler.fit(store, TRAIN)
    found = tile_groups(store, TRAIN, scaler, READS, 0)
    assert [tiles.teachers for tiles in found] == [(0,), (1,)]
    assert [list(tiles.maps) for tiles in found] == [[READS[0]], [READS[1]]]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([[20, 20, 7], [30, 30, 9], [0, 11, 8]], [[0, 1], [2]]),
        ([[20, 19, 19], [30, 29, 29], [12, 11, 11]], [[1, 2], [0]]),
        ([[20, 19, 1], [30, 30, 1], [12, 11, 1]], [[0], [1]]),
        ([[3, 1], [4, 1]], []),
        ([[0, 20], [0, 20]], [[1]]),
        ([[20, 0], [20, 20], [20, 0]], [[0], [1]]),
    ],
)
def test_teachers_of_the_same_tiles_are_told_by_their_numbers(
    sizes: list[list[int]], groups: list[list[int]]
) -> None:
    assert sharing(np.array(sizes)) == groups
