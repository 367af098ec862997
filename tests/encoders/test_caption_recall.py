"""Recall of captions against counting by hand, its chance against shuffling, and ties."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.encoders import caption_recall
from pipeline.encoders.caption_recall import Recall, recall


def one_each(
    images: np.ndarray, texts: np.ndarray, own: list[int], at: tuple[int, ...] = (1, 2)
) -> Recall:
    return recall(images, texts, np.arange(len(images)), np.array(own), at)


def test_both_directions() -> None:
    texts = np.eye(4)[:3]
    images = np.array([[1, 0, 0, 0], [0.6, 0.8, 0, 0], [0, 0.9, 0.43, 0], [0, 0, 1, 0]])
    found = one_each(images, texts, [0, 0, 1, 2])
    assert found.tile_to_text == {1: 0.75, 2: 1.0}
    assert found.text_to_tile == {1: 1.0, 2: 1.0}
    assert (found.tiles, found.texts) == (4, 3)
    far = one_each(images[[1, 2]], texts[:2], [1, 0])
    assert far.text_to_tile == {1: 0.0, 2: 1.0}


def test_a_model_for_which_all_is_alike_finds_nothing() -> None:
    same = np.tile([1.0, 0, 0], (6, 1))
    found = one_each(same, same, list(range(6)), (1, 5, 10))
    assert found.tile_to_text == {1: 0.0, 5: 0.0, 10: 1.0}
    assert found.text_to_tile == {1: 0.0, 5: 0.0, 10: 1.0}


def test_one_of_several_captions_is_enough_and_the_others_are_no_mistake() -> None:
    texts = np.eye(3)
    images = np.array([[0.5, 0.6, 0.1], [0.2, 0.1, 0.9]])
    found = recall(images, texts, np.array([1, 0, 0]), np.array([2, 0, 1]), (1,))
    assert found.tile_to_text == {1: 1.0} and found.text_to_tile == {1: 1.0}


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_give_what_every_pair_at_once_gives(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Tiles with one to three captions, in float64 with loops."""
    monkeypatch.setattr(caption_recall, "BLOCK", block)
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(40, 6)), rng.normal(size=(15, 6))
    tile = np.concatenate([np.arange(40), rng.integers(40, size=20), np.arange(15)])
    text = np.concatenate([rng.integers(15, size=60), np.arange(15)])
    pairs = sorted({*zip(tile.tolist(), text.tolist(), strict=True)})
    shuffled = rng.permutation(np.array(pairs))
    found = recall(images, texts, shuffled[:, 0], shuffled[:, 1], (1, 5))
    scores = images @ texts.T
    for k in (1, 5):
        answered = [bool({*np.argsort(-scores[i])[:k]} & {t for j, t in pairs if j == i})
                    for i in range(40)]  # fmt: skip
        assert found.tile_to_text[k] == pytest.approx(np.mean(answered))
        answered = [bool({*np.argsort(-scores[:, t])[:k]} & {j for j, u in pairs if u == t})
                    for t in range(15)]  # fmt: skip
        assert found.text_to_tile[k] == pytest.approx(np.mean(answered))


def test_chance_is_what_shuffled_tiles_reach() -> None:
    rng = np.random.default_rng(1)
    texts, own = rng.normal(size=(30, 8)), rng.integers(30, size=400)
    own[:30] = np.arange(30)
    found = [one_each(rng.normal(size=(400, 8)), texts, own.tolist(), (1, 10)) for _ in range(30)]
    for k in (1, 10):
        chance = found[0].tile_to_text_chance[k]
        assert np.mean([f.tile_to_text[k] for f in found]) == pytest.approx(chance, abs=0.02)
        chance = found[0].text_to_tile_chance[k]
        assert np.mean([f.text_to_tile[k] for f in found]) == pytest.approx(chance, abs=0.04)
    few = one_each(texts[:2], texts[:2], [0, 1], (5,))
    assert few.tile_to_text_chance == {5: 1.0}
