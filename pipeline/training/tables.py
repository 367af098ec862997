"""Small Parquet tables by column, without pandas: a short job should not wait for its import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from pipeline.errors import ArtifactError
from pipeline.files.artifacts import atomic_path, slices
from pipeline.runtime.machine_errors import is_machines

Columns = Mapping[str, Any]


def read_columns(path: Path, names: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Columns of a Parquet file by name, missing cells as None.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    found: dict[str, list[Any]] = {}
    try:
        with parquet.ParquetFile(path) as file:
            for some in slices(file.schema_arrow.names if names is None else names):
                table = file.read(columns=some)
                found |= {str(name): table.column(name).to_pylist() for name in table.column_names}
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the stage that makes it") from None
    except (OSError, ValueError) as error:
        if is_machines(error):
            raise
        raise ArtifactError(f"{path}: damaged ({error}); delete it and run again") from None
    return found


def write_columns(path: Path, columns: Columns) -> None:
    """Write columns of equal length: numbers, or texts (object arrays, lists)."""
    arrays = [_arrow(np.asarray(values)) for values in columns.values()]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)


def _arrow(values: np.ndarray) -> pa.Array:
    """An Arrow array made from buffers, because `pyarrow.array` imports pandas."""
    if values.dtype.kind in "OU":
        encoded = [str(value).encode() for value in values]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        texts = pa.py_buffer(b"".join(encoded))
        return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), texts)
    kind = pa.from_numpy_dtype(values.dtype)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [None, buffer])


def stack_columns(parts: Sequence[Columns]) -> dict[str, np.ndarray]:
    """Tables below one another; a numeric column that one lacks is NaN there.

    Folds of a discrete-time survival model may have different numbers of bins.
    """
    names = list(dict.fromkeys(name for part in parts for name in part))
    stacked: dict[str, np.ndarray] = {}
    for name in names:
        cells = []
        for part in parts:
            n = len(next(iter(part.values())))
            cells.append(np.asarray(part[name]) if name in part else np.full(n, np.nan))
        stacked[name] = np.concatenate(cells)
    return stacked
