"""Checksums of the datasets in HDF5 files, looked at wherever a whole dataset is read.

A copy that broke off may have the file's full length and nothing in the middle, which HDF5 reads as
zeros; its own Fletcher checksum of zeros is zero and does not notice.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

CHECKSUM = "crc32"


def checksum(values: npt.NDArray[Any], so_far: int = 0) -> int:
    """CRC-32 of an array's bytes, in order, continued from `so_far`."""
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, so_far)


def seal(dataset: Any, sum_of_all: int) -> None:
    """Write a dataset's checksum to its attributes."""
    dataset.attrs[CHECKSUM] = np.uint32(sum_of_all)


def is_intact(dataset: Any, sum_of_all: int) -> bool:
    """Whether a dataset, all of which was read, has its checksum. Others' files have none."""
    expected = dataset.attrs.get(CHECKSUM)
    return expected is None or int(expected) == sum_of_all
