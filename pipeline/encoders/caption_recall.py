"""Recall of captions: how often what belongs together is found, tiles by texts and texts by tiles.

The measure of cross-modal retrieval (Radford et al. 2021; Lu et al. 2024, CONCH): the share of
queries of which one own partner is among the k nearest. Others that are as near as the own one
count as nearer, so that a model for which all is alike finds nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

AT = (1, 5, 10)
BLOCK = 2048  # tiles that are compared with all texts at once

Shares = dict[int, float]


@dataclasses.dataclass(frozen=True)
class Recall:
    """Recall at each k, and what chance would give.

    Attributes:
        tile_to_text, text_to_tile: k -> share of queries that are answered.
        tile_to_text_chance, text_to_tile_chance: the same for an order at random.
        tiles, texts: queries of each direction.
    """

    tile_to_text: Shares
    text_to_tile: Shares
    tile_to_text_chance: Shares
    text_to_tile_chance: Shares
    tiles: int
    texts: int


def recall(
    images: np.ndarray,
    texts: np.ndarray,
    tile: np.ndarray,
    text: np.ndarray,
    at: Sequence[int] = AT,
) -> Recall:
    """Recall at k in both directions; a tile may have several captions, a caption several tiles.

    Args:
        images: float (N, D), of length 1: the tiles, each with a caption.
        texts: float (T, D), of length 1: the different captions, each of a tile.
        tile, text: int (P,), numbers of a tile and of a caption that belong together.
        at: each k.
    """
    order = np.argsort(tile, kind="stable")
    tile, text = tile[order], text[order]
    columns = texts.astype(np.float64).T
    best = np.full(len(texts), -np.inf)
    nearer_texts = np.empty(len(images), np.int64)
    for start, own, scores in _blocks(images, columns, tile, text):
        mine = np.where(own, scores, -np.inf)
        best = np.maximum(best, mine.max(axis=0))
        highest = mine.max(axis=1, keepdims=True)
        nearer_texts[start : start + len(scores)] = ((scores >= highest) & ~own).sum(axis=1)
    nearer_tiles = np.zeros(len(texts), np.int64)
    for _, own, scores in _blocks(images, columns, tile, text):
        nearer_tiles += ((scores >= best) & ~own).sum(axis=0)
    return Recall(
        tile_to_text={k: float((nearer_texts < k).mean()) for k in at},
        text_to_tile={k: float((nearer_tiles < k).mean()) for k in at},
        tile_to_text_chance=_chance(np.bincount(tile, minlength=len(images)), len(texts), at),
        text_to_tile_chance=_chance(np.bincount(text, minlength=len(texts)), len(images), at),
        tiles=len(images),
        texts=len(texts),
    )


def _blocks(
    images: np.ndarray, columns: np.ndarray, tile: np.ndarray, text: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Some tiles at a time: the first one's number, which texts are their own, all cosines.

    Args:
        images: (N, D), the tiles.
        columns: (D, T), the texts.
        tile, text: (P,), pairs, sorted by tile.
    """
    for start in range(0, len(images), BLOCK):
        some = images[start : start + BLOCK].astype(np.float64)
        first, last = np.searchsorted(tile, [start, start + len(some)])
        own = np.zeros((len(some), columns.shape[1]), bool)
        own[tile[first:last] - start, text[first:last]] = True
        yield start, own, some @ columns


def _chance(own: np.ndarray, among: int, at: Sequence[int]) -> Shares:
    """The share of queries that an order at random answers.

    Args:
        own: int (queries,), how many are right for each.
        among: how many there are to choose from.
        at: each k.
    """

    def missed(n: int, k: int) -> float:
        """That none of n is among the first k."""
        return math.comb(among - n, k) / math.comb(among, k) if k <= among - n else 0.0

    numbers, counts = np.unique(own, return_counts=True)
    return {
        k: 1 - float(np.average([missed(int(n), k) for n in numbers], weights=counts)) for k in at
    }
