"""Features scaled by the training part's mean and deviation; part of the model, so of its file."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.bags.batch import Batch
from pipeline.bags.store import Store

# A feature that varies less than this, relative to its own mean or to the median feature of its
# level, is dropped. Half precision rounds to 2^-11 of a value, so what little such a feature does
# is rounding, or a unit of the network that is all but dead; dividing by its deviation would make
# either the loudest voice of the teacher.
FLOOR = 1e-3

# Standardised values end here. A unit that is active in one tile of a hundred stands at 10 when it
# is; what lies beyond was hardly ever seen in training (a unit that woke up in a test slide, an
# untrained teacher), and no weight fitted to the training part knows what to make of it.
LIMIT = 10.0

BLOCK_VALUES = 2**17  # 512 KiB in float32, within most second-level caches


class Scaler(nn.Module):
    """x -> (x - mean) * inverse deviation within ±LIMIT, for each teacher and level.

    Features that hardly vary in the training part (FLOOR) become 0. Before `fit`, or without it,
    values pass as they are.

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
        self.register_buffer("limit", torch.tensor(torch.inf))
        self.limit: Tensor

    def fit(self, store: Store, cases: np.ndarray) -> None:
        """Mean and deviation over the tiles of `cases`, each case counting as much as another.

        Equal weights keep one slide with 40,000 tiles from deciding the scale for a small cohort.
        """
        self.limit.fill_(LIMIT)
        for t, levels in enumerate(self.dims):
            for level in levels:
                moments = tile_moments(store, t, level, cases)
                if moments is None:
                    continue
                mean, deviation = moments
                steady = deviation <= FLOOR * np.maximum(np.abs(mean), np.median(deviation))
                scale = np.where(steady, 0.0, 1 / np.where(steady, 1.0, deviation))
                self.get_buffer(f"shift_{t}_{level}").copy_(torch.from_numpy(-mean * scale))
                self.get_buffer(f"scale_{t}_{level}").copy_(torch.from_numpy(scale))

    def forward(self, batch: Batch) -> tuple[dict[str, Tensor], ...]:
        """Scaled float32 features of a batch, in the layout of `Batch.features`."""
        return tuple(
            {
                level: scaled(
                    batch.features[t][level],
                    self.get_buffer(f"shift_{t}_{level}"),
                    self.get_buffer(f"scale_{t}_{level}"),
                    self.limit,
                )
                for level in levels
            }
            for t, levels in enumerate(self.dims)
        )


def scaled(x: Tensor, shift: Tensor, scale: Tensor, limit: Tensor) -> Tensor:
    """x · scale + shift within ±limit, of the shape of x (…, d).

    float32; under autocast its type, to which the next layer would convert them anyway. On a CPU
    large bags go through in blocks that stay in its cache: all operations then cost one pass over
    memory instead of one each, which is most of the time of a wide teacher.

    Args:
        x: features (…, d), of any float type.
        shift: float32 (d,).
        scale: float32 (d,).
        limit: float32 scalar.
    """
    device = x.device.type
    mixed = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if mixed else torch.float32
    if device != "cpu" or x.numel() <= BLOCK_VALUES:
        return torch.addcmul(shift, x.float(), scale).clamp(-limit, limit).to(dtype)
    width = x.shape[-1]
    out = torch.empty(x.shape, dtype=dtype)
    rows = max(1, BLOCK_VALUES // width)
    bound = float(limit)
    source, target = x.reshape(-1, width), out.view(-1, width)
    wide = torch.empty(rows, width)
    for start in range(0, len(source), rows):
        block = source[start : start + rows]
        part = wide[: len(block)]
        torch.addcmul(shift, part.copy_(block), scale, out=part).clamp_(-bound, bound)
        target[start : start + rows] = part
    return out


def tile_moments(
    store: Store, teacher: int, level: str, cases: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and deviation (d,) over tiles, cases weighted equally; None if no case has any.

    Args:
        store: the features of all cases.
        teacher: number of the teacher.
        level: `low`, `mid` or `high`.
        cases: int (n,), numbers of the cases that count.
    """
    sizes = store.teachers[teacher].sizes[cases].astype(np.float64)
    has = sizes > 0
    if not has.any():
        return None
    weights = 1 / (sizes[has, None] * has.sum())
    mean = (store.sums[teacher][level][cases][has] * weights).sum(0)
    square = (store.squares[teacher][level][cases][has] * weights).sum(0)
    return mean, np.sqrt(np.maximum(square - mean**2, 0))
