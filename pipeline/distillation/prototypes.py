"""What kinds of tissue a case is made of, learned from the tiles of all teachers without labels.

The mean over a bag says what its tiles look like on average; that a quarter of them are of one kind
and the rest of another is hidden in it. Prototypes of tiles say just this, in a few numbers, which
is what a small cohort can learn from (Song et al., CVPR 2024, "Morphological prototyping"). Tiles
are seen by all teachers that share them at once: the leading components of their standardised
features, each of unit variance, so that what shows in several teachers weighs more than what one of
them makes of the stain.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from pipeline.aggregators.base import masked_mean
from pipeline.bags.batch import Batch
from pipeline.bags.scale import Scaler
from pipeline.bags.store import Store
from pipeline.distillation.tiles import TileComponents, some_at_a_time

COMPONENTS = 24
FAINTEST = 1 / 500  # of the first component's variance: below is noise, not worth unit variance
KINDS = 32
CASE_TILES = 512  # of a case, when its shares are counted for a fit
LEAST_SHARE = 1e-12  # below it the square root has no derivative to speak of
FAR = 1e4  # where the prototypes lie that few tiles leave without a place


class Prototypes(nn.Module):
    """Square roots of the soft shares that KINDS prototypes have of a bag.

    A tile x with components c(x) = x @ map + offset belongs to prototype k with weight
    softmax_k(-|c(x) - centre_k|² / width), where width is the mean squared distance of training
    tiles to their nearest prototype. Between square roots of shares the Euclidean distance is
    Hellinger's: a kind that grows from 1 to 4 % counts as much as one that grows from 25 to 36 %.

    Args:
        dims: for each teacher, level -> width.
        levels: levels that are read.
    """

    def __init__(self, dims: tuple[dict[str, int], ...], levels: tuple[str, ...]) -> None:
        super().__init__()
        self.reads = [(t, lv) for t, own in enumerate(dims) for lv in levels if lv in own]
        for t, level in self.reads:
            self.register_buffer(f"map_{t}_{level}", torch.zeros(dims[t][level], COMPONENTS))
        self.register_buffer("offset", torch.zeros(COMPONENTS))
        self.register_buffer("centres", torch.full((KINDS, COMPONENTS), FAR))
        self.register_buffer("width", torch.ones(()))
        self.register_buffer("used", torch.zeros(len(dims), dtype=torch.bool))
        self.offset: Tensor
        self.centres: Tensor
        self.width: Tensor
        self.used: Tensor

    def fit(self, tiles: TileComponents | None, seed: int) -> None:
        """Learn the prototypes from a sample of tiles; without one `used` is all False."""
        self.used.fill_(False)
        if tiles is None:
            return
        near = min(COMPONENTS, int((tiles.variances > FAINTEST * tiles.variances[0]).sum()))
        seen = tiles.seen[:, :near]
        kinds = min(KINDS, len(np.unique(seen, axis=0)))
        with threadpool_limits(1):  # sums of several threads depend on which comes first
            found = KMeans(kinds, n_init=1, random_state=seed % 2**32).fit(seen)
        for t, level in self.reads:
            own = self.get_buffer(f"map_{t}_{level}").zero_()
            if (t, level) in tiles.maps:
                own[:, :near] = torch.from_numpy(tiles.maps[t, level][:, :near]).to(own)
        self.offset.zero_()[:near] = torch.from_numpy(tiles.offset[:near]).to(self.offset)
        self.centres.fill_(FAR)
        self.centres[:kinds] = 0
        self.centres[:kinds, :near] = torch.from_numpy(found.cluster_centers_).to(self.centres)
        self.width.fill_(max(found.inertia_ / len(seen), 1e-6))
        self.used[list(tiles.teachers)] = True

    def has(self, present: Tensor) -> Tensor:
        """bool (n,): which of the cases bool (n, T) have all teachers that are read."""
        return (present | ~self.used).all(dim=1) & self.used.any()

    def forward(self, features: tuple[dict[str, Tensor], ...], batch: Batch) -> Tensor:
        """Scaled features of a batch -> (B, KINDS); arbitrary for a case that `has` not all."""
        teachers = torch.nonzero(self.used)[:, 0].tolist()
        # Bags that all of them have are equally long; longer ones lack a teacher.
        tiles = min(batch.masks[t].shape[1] for t in teachers)
        seen = self.offset
        reads = [(t, level) for t, level in self.reads if t in teachers]
        for t, level in reads:
            own = self.get_buffer(f"map_{t}_{level}")
            seen = seen + features[t][level][:, :tiles].to(own.dtype) @ own
        nearness = -torch.cdist(seen, self.centres).square() / self.width
        emphasis = None
        if batch.emphasis is not None:  # of each tile, all of its teachers' and levels'
            each = [batch.emphasis[read][:, :tiles] for read in reads]
            emphasis = torch.stack(each).mean(dim=0)
        shares = masked_mean(nearness.softmax(-1), batch.masks[teachers[0]][:, :tiles], emphasis)
        return shares.clamp(min=LEAST_SHARE).sqrt()

    @torch.no_grad()
    def shares(
        self, store: Store, cases: np.ndarray, scaler: Scaler
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of cases in a store float64 (n, KINDS), and bool (n,), which have all that is read.

        Args:
            store: the features of all cases.
            cases: int (n,), numbers of the cases.
            scaler: brings features to the scale that prototypes have.
        """
        found = np.zeros((len(cases), KINDS))
        has = self.has(torch.from_numpy(store.present[cases]).to(self.used.device)).cpu().numpy()
        for rows, batch in some_at_a_time(store, scaler, cases, np.flatnonzero(has), CASE_TILES):
            found[rows] = self(scaler(batch), batch).double().cpu().numpy()
        return found, has
