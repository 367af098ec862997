"""Pooling and smoothing against plain float64 arithmetic over all pairs of tiles."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pipeline.bags.files import FeatureFile, open_features
from pipeline.errors import ArtifactError
from pipeline.vision_language import scoring
from pipeline.vision_language.pooling import Pooling

D, P = 12, 7


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def slide(
    folder: Path, n: int, seed: int, coords: bool = True, spacing: int = 100
) -> tuple[FeatureFile, np.ndarray, np.ndarray]:
    """A feature file of scattered tiles, its features in float64, and its coordinates."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(40)), -1).reshape(-1, 2)
    chosen = np.sort(rng.choice(len(grid), n, replace=False))
    xy = grid[chosen] * spacing
    values = unit(rng.normal(size=(n, D))).astype(np.float16)
    path = folder / f"s{seed}.h5"
    with h5py.File(path, "w") as file:
        file["features"], file["aligned"] = values[:, :3], values
        if coords:
            file["coords"] = xy.astype(np.int32)
    return open_features(path), unit(values.astype(np.float64)), xy


def reference(
    slides: list[tuple[np.ndarray, np.ndarray]], weights: np.ndarray, smoothing: int, k: int
) -> np.ndarray:
    """All in float64, with every pair of tiles: no tree, no block, no running top k."""
    parts = []
    for features, xy in slides:
        scores = features @ weights.astype(np.float64).T
        if smoothing > 1:
            apart = ((xy[:, None] - xy[None]) ** 2).sum(-1)
            near = np.sort(apart, axis=1)[:, min(smoothing, len(xy)) - 1]
            # Only tiles whose neighbourhood is without ties can be compared.
            assert all(
                (row <= far).sum() == min(smoothing, len(xy))
                for row, far in zip(apart, near, strict=True)
            )
            scores = np.stack(
                [scores[row <= far].mean(0) for row, far in zip(apart, near, strict=True)]
            )
        parts.append(scores)
    joined = np.concatenate(parts)
    if k == 0:
        return joined.mean(0)
    return np.sort(joined, axis=0)[::-1][:k].mean(0)


def untied(folder: Path, n: int, seed: int) -> tuple[FeatureFile, np.ndarray, np.ndarray]:
    """A slide whose tiles lie at random places, so that no two distances are equal."""
    rng = np.random.default_rng(seed)
    values = unit(rng.normal(size=(n, D))).astype(np.float16)
    xy = rng.choice(10**6, (n, 2), replace=False).astype(np.int32)
    xy = xy[np.lexsort((xy[:, 0], xy[:, 1]))]
    path = folder / f"u{seed}.h5"
    with h5py.File(path, "w") as file:
        file["features"], file["aligned"], file["coords"] = values[:, :3], values, xy
    return open_features(path), unit(values.astype(np.float64)), xy.astype(np.float64)


@pytest.mark.parametrize("block", [7, 64, 10_000])
@pytest.mark.parametrize("smoothing", [0, 3, 8])
def test_scores_are_those_of_plain_arithmetic(tmp_path: Path, smoothing: int, block: int) -> None:
    made = [untied(tmp_path, n, seed) for seed, n in enumerate((150, 1, 40))]
    weights = unit(np.random.default_rng(9).normal(size=(P, D))).astype(np.float32)
    ks = (0, 1, 5, 50, 1000)
    found = scoring.score_case([m[0] for m in made], weights, (smoothing,), ks, block)
    slides = [(m[1], m[2]) for m in made]
    wanted = np.stack([reference(slides, weights, smoothing, k) for k in ks])
    assert found.shape == (1, len(ks), P)
    np.testing.assert_allclose(found[0], wanted, atol=2e-6)


def test_smoothing_differs_from_none_and_stays_within_a_slide(tmp_path: Path) -> None:
    one, other = untied(tmp_path, 30, 1)[0], untied(tmp_path, 30, 2)[0]
    weights = unit(np.random.default_rng(9).normal(size=(P, D))).astype(np.float32)
    both = scoring.score_case([one, other], weights, (0, 8), (0, 1))
    apart = [scoring.score_case([file], weights, (0, 8), (0, 1)) for file in (one, other)]
    assert not np.allclose(both[0], both[1])
    np.testing.assert_allclose(both[:, 1], np.maximum(apart[0][:, 1], apart[1][:, 1]), atol=1e-6)
    np.testing.assert_allclose(both[:, 0], (apart[0][:, 0] + apart[1][:, 0]) / 2, atol=1e-6)


def test_one_tile_and_fewer_tiles_than_k(tmp_path: Path) -> None:
    file, features, _ = untied(tmp_path, 1, 3)
    weights = unit(np.random.default_rng(9).normal(size=(P, D))).astype(np.float32)
    found = scoring.score_case([file], weights, (0, 8), (0, 1, 5))
    for pooled in found.reshape(-1, P):
        np.testing.assert_allclose(pooled, features[0] @ weights.T, atol=1e-6)


def test_a_tile_alone_far_away_is_its_own_neighbour_first() -> None:
    coords = np.array([[0, 0], [100, 0], [0, 100], [90_000, 90_000]])
    index = scoring.neighbours(scoring.tree_of(coords), coords, 2)
    assert index[:, 0].tolist() == [0, 1, 2, 3]
    assert set(index[3]) == {3, 1} or set(index[3]) == {3, 2}


def test_neighbours_of_a_tile_in_a_grid_are_those_around_it() -> None:
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(5)), -1).reshape(-1, 2) * 224
    index = scoring.neighbours(scoring.tree_of(grid), grid[[12]], 9)
    assert set(index[0]) == {6, 7, 8, 11, 12, 13, 16, 17, 18}


def test_without_coordinates_nothing_is_smoothed(tmp_path: Path) -> None:
    file, _, _ = slide(tmp_path, 20, 4, coords=False)
    weights = unit(np.random.default_rng(9).normal(size=(P, D))).astype(np.float32)
    assert scoring.score_case([file], weights, (0,), (1,)).shape == (1, 1, P)
    with pytest.raises(ArtifactError, match=r"smoothing: \[0\]"):
        scoring.score_case([file], weights, (8,), (1,))


def test_features_are_scaled_to_length_one() -> None:
    weights = torch.eye(3)
    found = scoring.cosines(np.array([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], np.float16), weights)
    np.testing.assert_allclose(found, [[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]], atol=1e-6)


@pytest.mark.parametrize("parts", [1, 3, 40])
def test_pooling_does_not_depend_on_blocks(parts: int) -> None:
    scores = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    pooling = Pooling((0, 3, 10), 4)
    for part in np.array_split(scores, parts):
        pooling.add(torch.from_numpy(part))
    high = np.sort(scores.astype(np.float64), axis=0)[::-1]
    wanted = [scores.mean(0, dtype=np.float64), high[:3].mean(0), high[:10].mean(0)]
    np.testing.assert_allclose(pooling.result(), wanted, atol=1e-7)


def test_pooling_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tile"):
        Pooling((1,), 3).result()


def test_tile_scores_are_in_the_order_of_the_tiles(tmp_path: Path) -> None:
    file, features, _ = slide(tmp_path, 60, 5)
    weights = unit(np.random.default_rng(9).normal(size=(P, D))).astype(np.float32)
    np.testing.assert_allclose(
        scoring.tile_scores(file, weights, 0), features @ weights.T, atol=1e-6
    )
