"""How long jobs take that wait for one another and for a free place: a list schedule.

Snakemake starts what is ready as soon as a place is free; so does this, with known durations
(R. L. Graham, Bounds on multiprocessing timing anomalies, 1969: at most twice the best schedule).
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Chain:
    """A job without a GPU, and the GPU jobs that can start once it has ended; durations alike."""

    first: float
    then: tuple[float, ...]


def makespan(chains: Sequence[Chain], places: int, gpus: int, queue: float = 0.0) -> float:
    """Time from the first start to the last end.

    Args:
        chains: what is to be done.
        places: jobs without a GPU that run at once.
        gpus: GPU jobs that run at once.
        queue: how long each job waits in addition, although its place is free.

    Returns:
        in the unit of the durations; 0 for no chain.
    """
    free = [0.0] * max(1, places)
    ready: list[tuple[float, float]] = []
    end = 0.0
    for chain in chains:
        done = heapq.heappop(free) + queue + chain.first
        heapq.heappush(free, done)
        ready += [(done, duration) for duration in chain.then]
        end = max(end, done)
    free = [0.0] * max(1, gpus)
    for at, duration in sorted(ready):
        done = max(at, heapq.heappop(free)) + queue + duration
        heapq.heappush(free, done)
        end = max(end, done)
    return end
