"""Which tiles a step sees: a function of its number alone, so that nothing has to be remembered.

Slides are visited in rounds. In each round every slide comes once, in a new order, and gives the
same number of tiles: a slide with 50,000 tiles teaches no more than one with 500. A slide gives its
tiles without repetition until all have been seen.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from pipeline.files.digests import digest


def seed_of(*parts: object) -> int:
    """A seed of 63 bits from any plain values."""
    return int(digest(*parts), 16) >> 1


@dataclasses.dataclass(frozen=True)
class Sampler:
    """The order of all visits of a training.

    Attributes:
        tiles: of each slide, how many it has.
        per_visit: tiles that a visit takes.
        seed: of every order.
        whole: a visit takes no tile twice: of a slide with fewer tiles it takes all of them.
    """

    tiles: tuple[int, ...]
    per_visit: int
    seed: int
    whole: bool = False

    def visit(self, number: int) -> tuple[int, np.ndarray]:
        """A slide and some of its tiles.

        Args:
            number: of the visit, from 0; there is no last one.

        Returns:
            the slide's place, and int64 (per_visit,) its tiles' places.
        """
        turn, place = divmod(number, len(self.tiles))
        slide = int(_order(len(self.tiles), self.seed, "slides", turn)[place])
        count = self.tiles[slide]
        take = min(self.per_visit, count) if self.whole else self.per_visit
        wanted = np.arange(turn * take, (turn + 1) * take)
        rounds, places = np.divmod(wanted, count)
        orders = {int(r): _order(count, self.seed, slide, int(r)) for r in np.unique(rounds)}
        chosen = [orders[int(r)][p] for r, p in zip(rounds, places, strict=True)]
        return slide, np.array(chosen, dtype=np.int64)


@lru_cache(maxsize=256)
def _order(count: int, *key: object) -> np.ndarray:
    return np.random.default_rng(seed_of(*key)).permutation(count)
