"""Features scaled by the training part's mean and deviation; part of the model, so of its file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.bags.batch import Batch
from pipeline.bags.store import Store

FLOOR = 1e-6  # a constant feature is centred and otherwise left alone


class Scaler(nn.Module):
    """x -> (x - mean) * inverse deviation, for each teacher and level.

    Args:
        dims: for each teacher, level -> width.
    """

    def __init__(self, dims: tuple[dict[str, int], ...]) -> None:
        super().__init__()
        self.dims = dims
        for t, levels in enumerate(dims):
            for level, dim in levels.items():
                self.register_buffer(f"shift_{t}_{level}", torch.zeros(dim))
                self.register_buffer(f"scale_{t}_{level}", torch.ones(dim))

    def fit(self, store: Store, cases: np.ndarray) -> None:
        """Mean and deviation over the tiles of `cases`, each case counting as much as another.

        Equal weights keep one slide with 40,000 tiles from deciding the scale for a small cohort.
        """
        for t, levels in enumerate(self.dims):
            for level in levels:
                moments = tile_moments(store, t, level, cases)
                if moments is None:
                    continue
                mean, deviation = moments
                steady = deviation <= FLOOR * (1 + np.abs(mean))
                scale = np.where(steady, 1.0, 1 / np.where(steady, 1.0, deviation))
                self.get_buffer(f"shift_{t}_{level}").copy_(torch.from_numpy(-mean * scale))
                self.get_buffer(f"scale_{t}_{level}").copy_(torch.from_numpy(scale))

    def means(self, store: Store, teacher: int, level: str) -> np.ndarray:
        """Scaled case means float64 (cases, d); NaN rows where the teacher is missing."""
        shift = self.get_buffer(f"shift_{teacher}_{level}").double().cpu().numpy()
        scale = self.get_buffer(f"scale_{teacher}_{level}").double().cpu().numpy()
        return store.means(teacher, level) * scale + shift

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], ...]:
        """Scaled float32 features of a batch, in the layout of `Batch.features`."""
        return tuple(
            {
                level: torch.addcmul(
                    self.get_buffer(f"shift_{t}_{level}"),
                    batch.features[t][level].to(torch.float32),
                    self.get_buffer(f"scale_{t}_{level}"),
                )
                for level in levels
            }
            for t, levels in enumerate(self.dims)
        )


def tile_moments(
    store: Store, teacher: int, level: str, cases: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation (d,) over tiles, cases weighted equally; None if no case has any."""
    sizes = store.teachers[teacher].sizes[cases].astype(np.float64)
    has = sizes > 0
    if not has.any():
        return None
    weights = 1 / (sizes[has, None] * has.sum())
    mean = (store.sums[teacher][level][cases][has] * weights).sum(0)
    square = (store.squares[teacher][level][cases][has] * weights).sum(0)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
