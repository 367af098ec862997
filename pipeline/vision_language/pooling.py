"""From the scores of a case's tiles to one score a prompt: the mean, or that of the k highest.

Each column is pooled by itself (MI-Zero, Lu et al. 2023; the mean rather than the sum of the k
highest, as CONCH has it). Tiles come in blocks and are forgotten: what is kept does not grow with
their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Pooling:
    """Pools scores that come block by block.

    Args:
        ks: how many of the highest scores are averaged; 0: all of them. A case of fewer tiles than
            k is the mean of those that it has.
        columns: scores per tile.
    """

    def __init__(self, ks: Sequence[int], columns: int) -> None:
        self.ks = tuple(ks)
        self.most = max(self.ks)
        self.highest = torch.empty(0, columns)
        self.total = torch.zeros(columns, dtype=torch.float64)
        self.count = 0

    def add(self, scores: Tensor) -> None:
        """Take in the scores of some tiles.

        Args:
            scores: float32 (n, columns).
        """
        self.count += len(scores)
        if 0 in self.ks:
            self.total += scores.sum(dim=0, dtype=torch.float64)
        if not self.most:
            return
        if len(self.highest) == self.most:
            # A row that reaches no column's lowest kept score changes nothing.
            scores = scores[(scores > self.highest[-1]).any(dim=1)]
            if not len(scores):
                return
        joined = torch.cat([self.highest, scores])
        k = min(self.most, len(joined))
        self.highest = joined.T.contiguous().topk(k, dim=1).values.T.contiguous()

    def result(self) -> np.ndarray:
        """The pooled scores, float64 (ks, columns).

        Raises:
            ValueError: no tile came.
        """
        if not self.count:
            raise ValueError("no tile to pool")
        rows = []
        for k in self.ks:
            if k == 0:
                rows.append(self.total / self.count)
            else:
                rows.append(self.highest[:k].double().mean(dim=0))
        return torch.stack(rows).numpy()
