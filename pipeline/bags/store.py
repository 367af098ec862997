"""The bags of all cases, read once: resident while they fit in memory, streamed when not.

Either way the same rows give the same batch. While reading, the first two moments of every case
are kept, from which each fold's scaler and whitening are fitted without touching the tiles again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.bags.batch import Batch, pad_rows, presence
from pipeline.bags.files import read_level
from pipeline.bags.index import TeacherIndex, available_levels, index_teacher
from pipeline.bags.memory import host_budget
from pipeline.bags.sampling import spread
from pipeline.contracts.case_map import CaseMap
from pipeline.errors import ArtifactError
from pipeline.runtime import progress


@dataclasses.dataclass(frozen=True)
class Store:
    """Bags of `cases` for several teachers.

    Attributes:
        cases: case ids; a case's position here is its number everywhere.
        teachers: one index per teacher.
        sums, squares: for each teacher, level -> float64 (cases, d), sums over a case's tiles.
        resident: for each teacher, level -> (tiles, d) with all bags end to end; None: streamed.
        device: where batches go.
    """

    cases: tuple[str, ...]
    teachers: tuple[TeacherIndex, ...]
    sums: tuple[dict[str, np.ndarray], ...]
    squares: tuple[dict[str, np.ndarray], ...]
    resident: tuple[dict[str, Tensor], ...] | None
    device: torch.device

    @property
    def sizes(self) -> np.ndarray:
        """int64 (cases, T), tiles per case and teacher."""
        return np.stack([teacher.sizes for teacher in self.teachers], axis=1)

    @property
    def present(self) -> np.ndarray:
        """bool (cases, T)."""
        return np.asarray(self.sizes > 0)

    def means(self, teacher: int, level: str) -> np.ndarray:
        """float64 (cases, d): each case's mean feature; NaN rows where the teacher is missing."""
        sizes = self.teachers[teacher].sizes
        with np.errstate(invalid="ignore"):
            return np.asarray(self.sums[teacher][level] / sizes[:, None])

    def digest(self) -> str:
        """16 hex digits that change when any feature changes: the moments of every case."""
        state = hashlib.sha256()
        for index, sums in zip(self.teachers, self.sums, strict=True):
            state.update(repr((index.name, index.levels, index.sizes.tolist())).encode())
            for level in index.levels:
                state.update(np.ascontiguousarray(sums[level]).tobytes())
        return state.hexdigest()[:16]


def open_store(
    mapping: CaseMap,
    root: Path,
    teachers: Sequence[str],
    levels: Sequence[str],
    cases: Sequence[str],
    device: torch.device,
    budget: int | None = None,
) -> Store:
    """Read the bags.

    Args:
        mapping: the feature files of each case.
        root: the results folder.
        teachers: teacher names; each brings those of `levels` that its files have.
        levels: wanted levels, in order.
        cases: case ids.
        device: where batches go; resident bags lie there when they fit.
        budget: bytes that resident bags may take; None: half of what is free.

    Raises:
        ArtifactError: a feature file is damaged, or a teacher has none of the levels.
    """
    indices = []
    for teacher in teachers:
        has = available_levels(mapping, teacher, levels)
        if not has:
            raise ArtifactError(
                f"teacher `{teacher}` has none of the levels {', '.join(levels)}; its features "
                f"hold {', '.join(mapping.teachers[teacher].dims)}"
            )
        indices.append(index_teacher(mapping, root, teacher, has, cases))
    allowed = host_budget() if budget is None else budget
    keep = sum(index.bytes for index in indices) <= allowed
    sums, squares, resident = [], [], []
    for index in progress.counted(indices, "teachers' bags read"):
        total, square, matrices = _read(index, keep)
        sums.append(total)
        squares.append(square)
        resident.append(matrices)
    placed = tuple(_place(r, device) for r in resident) if keep else None
    return Store(tuple(cases), tuple(indices), tuple(sums), tuple(squares), placed, device)


def gather(store: Store, chosen: Mapping[int, Sequence[np.ndarray]]) -> Batch:
    """The batch of the given rows.

    Args:
        store: the bags.
        chosen: case -> row numbers per teacher, ascending, as `sampling.draw` makes them.
    """
    cases = list(chosen)
    features, masks, rows = [], [], []
    for t, index in enumerate(store.teachers):
        row, mask = pad_rows([chosen[case][t] for case in cases])
        masks.append(torch.from_numpy(mask).to(store.device))
        rows.append(torch.from_numpy(row))
        if store.resident is not None:
            flat = torch.from_numpy((row + index.starts[cases][:, None]).ravel())
            flat.clamp_(max=max(int(index.sizes.sum()) - 1, 0))
            features.append(
                {
                    level: matrix[flat.to(matrix.device)]
                    .reshape(*row.shape, matrix.shape[1])
                    .to(store.device)
                    for level, matrix in store.resident[t].items()
                }
            )
        else:
            features.append(
                {
                    level: _stream(index, level, cases, [chosen[c][t] for c in cases], mask).to(
                        store.device
                    )
                    for level in index.levels
                }
            )
    numbers = torch.tensor(cases, dtype=torch.int64, device=store.device)
    files = tuple(index.files for index in store.teachers)
    return Batch(numbers, tuple(features), tuple(masks), tuple(rows), presence(masks), files=files)


def whole(store: Store, cases: Sequence[int], limit: int | None) -> dict[int, list[np.ndarray]]:
    """The rows that evaluation uses: all, or `limit` spread evenly over a larger bag.

    Args:
        store: the features of all cases.
        cases: numbers of the cases.
        limit: most tiles of a case; None: all.
    """
    sizes = store.sizes
    return {case: [spread(int(size), limit) for size in sizes[case]] for case in cases}


def _read(
    index: TeacherIndex, keep: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, Tensor]]:
    """Moments of every case, and the matrices laid end to end when they are to be kept."""
    n = len(index.sizes)
    sums = {level: np.zeros((n, dim)) for level, dim in index.dims.items()}
    squares = {level: np.zeros((n, dim)) for level, dim in index.dims.items()}
    matrices: dict[str, Tensor] = {}
    for level, dim in index.dims.items():
        parts: list[np.ndarray] = []
        for case, files in enumerate(index.files):
            for file in files:
                part = read_level(file, level)
                wide = part.astype(np.float32)
                sums[level][case] += wide.sum(0, dtype=np.float64)
                squares[level][case] += np.einsum("nd,nd->d", wide, wide, dtype=np.float64)
                if keep:
                    parts.append(part)
        if keep:
            matrix = np.concatenate(parts) if parts else np.zeros((1, dim), np.float16)
            matrices[level] = torch.from_numpy(matrix)
    return sums, squares, matrices


def _place(matrices: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move matrices to the device while at least half of its memory stays free."""
    if device.type != "cuda":
        return matrices
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(m.numel() * m.element_size() for m in matrices.values())
    return {k: m.to(device) for k, m in matrices.items()} if size < free / 2 else matrices


def _stream(
    index: TeacherIndex,
    level: str,
    cases: Sequence[int],
    chosen: Sequence[np.ndarray],
    mask: np.ndarray,
) -> Tensor:
    """(B, N, d) read from the files, row by chosen row, in their precision; zeros in padding."""
    half = all(file.value_bytes == 2 for case in cases for file in index.files[case])
    out = torch.zeros(*mask.shape, index.dims[level], dtype=torch.half if half else torch.float32)
    for position, (case, rows) in enumerate(zip(cases, chosen, strict=True)):
        start = filled = 0
        for file in index.files[case]:
            inside = rows[(rows >= start) & (rows < start + file.n_tiles)] - start
            if len(inside):
                part = torch.from_numpy(read_level(file, level, inside))
                out[position, filled : filled + len(part)] = part
                filled += len(part)
            start += file.n_tiles
    return out
