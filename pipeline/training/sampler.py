"""Batches of equal size in which every stratum has its share."""

from __future__ import annotations

import math

import numpy as np


def batches(
    cases: np.ndarray,
    strata: np.ndarray,
    size: int,
    rng: np.random.Generator,
    needed: int | None = None,
) -> list[np.ndarray]:
    """Deal cases out to batches.

    Every case is in exactly one batch; sizes differ by at most one, so none is dropped and none is
    a straggler; and the members of a stratum are spread as evenly as they go.

    Args:
        cases: int64 (n,), what is dealt.
        strata: int64 (n,), a stratum for each.
        size: wished size; batches grow where the needed stratum is too rare.
        rng: decides the order.
        needed: a stratum that every batch must have (events, for a Cox loss).

    Raises:
        ValueError: the needed stratum has no member.
    """
    number = max(1, math.ceil(len(cases) / size))
    if needed is not None:
        rare = int((strata == needed).sum())
        if rare == 0:
            raise ValueError("no case of the needed stratum: no batch can be made")
        number = min(number, rare)
    order = rng.permutation(len(cases))
    # A stable sort by stratum keeps the shuffle inside each; dealing round robin spreads them.
    dealt = order[np.argsort(strata[order], kind="stable")]
    return [cases[dealt[i::number]] for i in rng.permutation(number)]
