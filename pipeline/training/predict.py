"""Forward passes without gradients: whole bags in batches of bounded size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from pipeline.aggregators.network import Network, Output
from pipeline.bags.batch import Batch
from pipeline.bags.store import Store, gather, whole

BATCH_VALUES = 2**24  # padded feature values of a batch: 64 MiB in float32
KEPT_VALUES = 2**26  # batches of a part are kept between epochs up to this size
MIXED_VALUES = 2**22  # feature values from which on a CPU's bfloat16 is worth the conversions


class Batches:
    """Whole bags of some cases in batches of like size, kept between passes when small.

    Args:
        store: the bags.
        cases: int64 (n,).
        limit: most tiles per bag; larger ones are thinned evenly.
    """

    def __init__(self, store: Store, cases: np.ndarray, limit: int | None) -> None:
        self.store, self.cases, self.limit = store, cases, limit
        sizes = store.sizes[cases]
        sizes = sizes if limit is None else np.minimum(sizes, limit)
        widths = np.array([sum(teacher.dims.values()) for teacher in store.teachers])
        self.groups = _groups(cases, sizes, widths)
        values = float((np.maximum(sizes, 1) * widths).sum())
        keep = store.resident is not None and values <= KEPT_VALUES
        self.kept = [self._make(group) for group in self.groups] if keep else None

    def _make(self, group: np.ndarray) -> Batch:
        return gather(self.store, whole(self.store, group.tolist(), self.limit))

    def __iter__(self) -> Iterator[Batch]:
        yield from self.kept if self.kept is not None else map(self._make, self.groups)


def _groups(cases: np.ndarray, sizes: np.ndarray, widths: np.ndarray) -> list[np.ndarray]:
    """Cases in order of size, cut where the padded batch would grow too large."""
    order = np.argsort(sizes.max(1), kind="stable")
    groups: list[list[int]] = []
    largest = np.zeros(len(widths), dtype=np.int64)
    for i in order:
        grown = np.maximum(largest, sizes[i])
        if groups and (len(groups[-1]) + 1) * float(grown @ widths) <= BATCH_VALUES:
            groups[-1].append(int(cases[i]))
            largest = grown
        else:
            groups.append([int(cases[i])])
            largest = sizes[i]
    return [np.array(group, dtype=np.int64) for group in groups]


def is_mixed(batch: Batch, wanted: str) -> bool:
    """Whether a batch goes through in mixed precision.

    `auto`: on a GPU that has bfloat16, and large batches on a CPU that has instructions for it.
    """
    if wanted != "auto":
        return wanted == "bf16"
    if batch.cases.device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    values = sum(x.numel() for levels in batch.features for x in levels.values())
    return values >= MIXED_VALUES and _native()


def _native() -> bool:
    """Whether this processor multiplies matrices in bfloat16."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextlib.contextmanager
def precision(batch: Batch, wanted: str) -> Iterator[None]:
    """bfloat16 where it is harmless, if `is_mixed`."""
    if is_mixed(batch, wanted):
        with torch.autocast(batch.cases.device.type, dtype=torch.bfloat16):
            yield
    else:
        yield


@torch.no_grad()
def outputs(
    network: Network, batches: Iterable[Batch], wanted: str = "fp32"
) -> dict[int, np.ndarray]:
    """Raw outputs of the cases in the batches: case -> float32 (C,).

    Args:
        network: trained.
        batches: of the cases.
        wanted: precision of the forward pass: auto, fp32 or bf16.
    """
    network.eval()
    found: dict[int, np.ndarray] = {}
    for batch in batches:
        with precision(batch, wanted):
            out: Output = network(batch)
        values = out.out.float().cpu().numpy()
        found.update(zip(batch.cases.tolist(), values, strict=True))
    return found


def predict(
    network: Network, store: Store, cases: np.ndarray, limit: int | None, wanted: str = "fp32"
) -> np.ndarray:
    """Raw outputs float32 (n, C), in the order of `cases`.

    Args:
        network: trained.
        store: the features of all cases.
        cases: int (n,), numbers of the cases.
        limit: most tiles of a case; None: all.
        wanted: precision of the forward pass: auto, fp32 or bf16.
    """
    unique = np.unique(cases)
    found = outputs(network, Batches(store, unique, limit), wanted)
    return np.stack([found[int(case)] for case in cases])
