"""Cosines of a case's tiles with prompts, smoothed over neighbours, pooled; in bounded memory.

Tiles are read in blocks. To smooth a block, its tiles' neighbours are looked up in a KD-tree of the
slide's coordinates and their cosines, too, are computed: tiles lie in rows, so that the neighbours
of a block are mostly the block and a little of what is before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.bags.files import FeatureFile, read_coords, read_level
from pipeline.encoders.registry import ALIGNED
from pipeline.errors import ArtifactError
from pipeline.vision_language.pooling import Pooling

if TYPE_CHECKING:
    from scipy.spatial import KDTree

BLOCK = 16_384  # tiles that are scored at once
Rows = Callable[[np.ndarray], np.ndarray]


def tree_of(coords: np.ndarray) -> KDTree:
    """A KD-tree of tiles; all of one size, so that corners are as far apart as centres.

    Args:
        coords: (N, 2), upper left corners in level-0 pixels.
    """
    from scipy.spatial import KDTree

    return KDTree(coords.astype(np.float64))


def neighbours(tree: KDTree, places: np.ndarray, k: int) -> np.ndarray:
    """The k nearest tiles of each tile, itself among them.

    Args:
        tree: of all tiles of a slide.
        places: (n, 2), corners of some of them.
        k: how many; fewer where the slide has fewer.

    Returns:
        int64 (n, min(k, N)).
    """
    k = min(k, tree.n)
    _, found = tree.query(places.astype(np.float64), k=k)
    return np.asarray(found, dtype=np.int64).reshape(len(places), k)


def cosines(features: np.ndarray, weights: Tensor) -> Tensor:
    """Cosines of tiles with prompts.

    Args:
        features: (n, D); scaled to length 1 here, since half precision loses a little of it.
        weights: float32 (P, D), of length 1.

    Returns:
        float32 (n, P).
    """
    values = torch.from_numpy(np.ascontiguousarray(features)).float()
    return (values @ weights.T) / values.norm(dim=1, keepdim=True).clamp_min(1e-6)


def smoothed(scores: Tensor, index: np.ndarray) -> Tensor:
    """Means over neighbours.

    Args:
        scores: float32 (m, P).
        index: int64 (n, k), rows of `scores`.

    Returns:
        float32 (n, P).
    """
    return F.embedding_bag(torch.from_numpy(index), scores, mode="mean")


def score_blocks(
    read: Rows, coords: np.ndarray | None, n: int, weights: Tensor, k: int, block: int = BLOCK
) -> Iterator[Tensor]:
    """The scores of a slide's tiles, in their order, block by block.

    Args:
        read: gives the features (len(rows), D) of some rows, sorted ascending.
        coords: (N, 2), corners of all tiles; may be None without smoothing.
        n: how many tiles.
        weights: float32 (P, D), of length 1.
        k: neighbours that are averaged, the tile itself among them; 0 or 1: no smoothing.
        block: tiles at once.
    """
    tree = tree_of(coords) if k > 1 and coords is not None else None
    for start in range(0, n, block):
        rows = np.arange(start, min(start + block, n))
        if tree is None or coords is None:
            yield cosines(read(rows), weights)
            continue
        index = neighbours(tree, coords[rows], k)
        needed, places = np.unique(index, return_inverse=True)
        yield smoothed(cosines(read(needed), weights), places.reshape(index.shape))


def score_case(
    files: Sequence[FeatureFile],
    weights: np.ndarray,
    smoothing: Sequence[int],
    ks: Sequence[int],
    block: int = BLOCK,
) -> np.ndarray:
    """Pooled scores of a case, whose slides form one bag; smoothing stays within a slide.

    Args:
        files: the feature files of its slides, with the level `aligned`.
        weights: float32 (P, D), of length 1.
        smoothing: each k of `score_blocks` that is wanted.
        ks: each k of `Pooling` that is wanted.
        block: tiles at once.

    Returns:
        float64 (smoothing, ks, P).

    Raises:
        ArtifactError: a file has no such level, or no coordinates to smooth over.
    """
    columns = torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32))
    found = []
    for k in smoothing:
        pooling = Pooling(ks, len(columns))
        for file in files:
            for scores in score_blocks(
                reader(file), coords_of(file, k), file.n_tiles, columns, k, block
            ):
                pooling.add(scores)
        found.append(pooling.result())
    return np.stack(found)


def tile_scores(file: FeatureFile, weights: np.ndarray, k: int) -> np.ndarray:
    """The scores of every tile of a slide, float32 (N, P).

    Args:
        file: its features.
        weights: float32 (P, D), of length 1.
        k: of `score_blocks`.

    Raises:
        ArtifactError: as in `score_case`.
    """
    columns = torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32))
    parts = score_blocks(reader(file), coords_of(file, k), file.n_tiles, columns, k)
    return torch.cat(list(parts)).numpy()


def reader(file: FeatureFile) -> Rows:
    """What reads rows of a file's aligned features."""
    return lambda rows: read_level(file, ALIGNED, rows)


def coords_of(file: FeatureFile, k: int) -> np.ndarray | None:
    """The tiles' corners, where smoothing needs them.

    Args:
        file: the features.
        k: neighbours.

    Raises:
        ArtifactError: it needs them and the file has none.
    """
    if k <= 1:
        return None
    coords = read_coords(file)
    if coords is None:
        raise ArtifactError(
            f"{file.path}: has no coordinates in level-0 pixels, so that its scores cannot be "
            "smoothed over neighbours; set vision_language.smoothing: [0]"
        )
    return coords
