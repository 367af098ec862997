"""The order of tiles: every slide alike, no tile twice in a round, and known from its number."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tile_training.loader import Even, Share
from pipeline.tile_training.sampling import Sampler

TILES = st.lists(st.integers(1, 30), min_size=1, max_size=6).map(tuple)


@settings(deadline=None, max_examples=40)
@given(TILES, st.integers(1, 8), st.integers(0, 3))
def test_every_slide_gives_alike_and_no_tile_twice_before_all(
    tiles: tuple[int, ...], per_visit: int, seed: int
) -> None:
    sampler = Sampler(tiles, per_visit, seed)
    rounds = 7
    drawn: dict[int, list[int]] = {slide: [] for slide in range(len(tiles))}
    for number in range(rounds * len(tiles)):
        slide, places = sampler.visit(number)
        assert len(places) == per_visit
        drawn[slide] += places.tolist()
    for slide, count in enumerate(tiles):
        assert len(drawn[slide]) == rounds * per_visit
        for start in range(0, len(drawn[slide]) - count + 1, count):
            assert sorted(drawn[slide][start : start + count]) == list(range(count))


def test_whole_visits_take_all_of_a_small_slide_once() -> None:
    sampler = Sampler((5, 100), 20, 0, whole=True)
    for number in range(6):
        slide, places = sampler.visit(number)
        assert len(set(places.tolist())) == len(places) == (5 if slide == 0 else 20)


def test_processes_share_the_visits_of_one() -> None:
    sampler = Sampler((9, 9, 9), 2, 1)
    alone = [v for number in range(3) for v in Share(sampler, 4)(number)]
    together = [
        v for number in range(3) for rank in range(2) for v in Share(sampler, 2, rank, 2)(number)
    ]
    assert [(s, p.tolist()) for s, p in alone] == [(s, p.tolist()) for s, p in together]


def test_another_seed_is_another_order() -> None:
    orders = [[Sampler((50,) * 8, 4, seed).visit(n)[0] for n in range(8)] for seed in (0, 1)]
    assert orders[0] != orders[1]
    assert all(Counter(order) == Counter(range(8)) for order in orders)


def test_validation_tiles_are_spread_evenly() -> None:
    even = Even((10, 3), 5)
    assert even(0)[0][1].tolist() == [0, 2, 4, 6, 8]
    assert even(1)[0][1].tolist() == [0, 1, 2]
    assert np.all(np.diff(Even((1000,), 7)(0)[0][1]) > 100)
