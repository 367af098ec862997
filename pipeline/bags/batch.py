"""A batch of bags: padded tensors and masks, True = padding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.bags.files import FeatureFile


@dataclasses.dataclass(frozen=True)
class Batch:
    """B cases, for each of T teachers a padded bag at each of the teacher's levels.

    Attributes:
        cases: int64 (B,), positions of the cases in the store.
        features: for each teacher, level -> (B, N_t, d_tl). Rows under the mask are arbitrary but
            finite.
        masks: for each teacher, bool (B, N_t), True = padding. A missing teacher is all True.
        rows: for each teacher, int64 (B, N_t), the tile's row in the case's bag (0 in padding).
        present: bool (B, T), False where the teacher has no tile for the case.
        emphasis: (teacher number, level) -> (B, N_t), the logarithm of how much each tile counts
            for a network that pools by weights; None: all tiles count alike.
        files: for each teacher, the feature files of every case of the store, for a network that
            asks where tiles are; None of a made-up batch.
    """

    cases: Tensor
    features: tuple[dict[str, Tensor], ...]
    masks: tuple[Tensor, ...]
    rows: tuple[Tensor, ...]
    present: Tensor
    emphasis: Mapping[tuple[int, str], Tensor] | None = None
    files: tuple[Sequence[tuple[FeatureFile, ...]], ...] | None = None

    def __len__(self) -> int:
        return int(self.cases.shape[0])

    def emphasised(self, teacher: int, level: str) -> Tensor | None:
        """(B, N_t), or None where all tiles count alike."""
        return None if self.emphasis is None else self.emphasis[teacher, level]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; `rows` and `emphasis` stay where they are."""
        return dataclasses.replace(
            self,
            cases=self.cases.to(device),
            features=tuple({k: x.to(device) for k, x in own.items()} for own in self.features),
            masks=tuple(mask.to(device) for mask in self.masks),
            present=self.present.to(device),
        )


def pad_rows(chosen: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Row choices of several bags as one rectangle.

    Args:
        chosen: one int64 array of row numbers per case; may be empty.

    Returns:
        rows int64 (B, N) with 0 where padded, and mask bool (B, N), True = padding; N >= 1.
    """
    lengths = np.array([len(c) for c in chosen], dtype=np.int64)
    width = max(int(lengths.max(initial=0)), 1)
    mask = np.arange(width)[None, :] >= lengths[:, None]
    rows = np.zeros((len(chosen), width), dtype=np.int64)
    if lengths.sum():
        rows[~mask] = np.concatenate(chosen)
    return rows, mask


def presence(masks: Sequence[Tensor]) -> Tensor:
    """bool (B, T): which teachers have at least one real tile."""
    return torch.stack([~mask.all(dim=1) for mask in masks], dim=1)
