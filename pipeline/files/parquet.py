"""Parquet tables: by column without pandas, whose import a short job should not wait for, or with.

All Parquet is read here: a file that is missing, damaged or of another version is said alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ArtifactError
from pipeline.files.artifacts import atomic_path
from pipeline.runtime.machine_errors import is_machines

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Columns = Mapping[str, Any]
AT_ONCE = 1000  # columns that are read together: each takes much more than its values


def read_columns(path: str | Path, names: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Columns of a Parquet file by name (None: all), missing cells as None.

    Raises:
        ArtifactError: the file is missing or damaged, or lacks a column.
    """
    return {
        str(name): part.column(name).to_pylist()
        for part in _parts(path, names)
        for name in part.column_names
    }


def read_table(path: str | Path) -> pd.DataFrame:
    """A Parquet file as a table.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    import pandas as pd

    parts = [part.to_pandas() for part in _parts(path, None)]
    return parts[0] if len(parts) == 1 else pd.concat(parts, axis=1)


def _parts(path: str | Path, names: Sequence[str] | None) -> Iterator[pa.Table]:
    """The named columns in order, AT_ONCE at a time."""
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            known = file.schema_arrow.names
            wanted = list(known if names is None else names)
            absent = [name for name in wanted if name not in known]
            if absent:
                raise ArtifactError(
                    f"{path}: no column {', '.join(absent)}; it was made by another version: "
                    f"delete it and run again"
                )
            for i in range(0, max(len(wanted), 1), AT_ONCE):
                yield file.read(columns=wanted[i : i + AT_ONCE])
    except FileNotFoundError:
        raise ArtifactError(f"{path}: missing; run the stage that makes it") from None
    except (OSError, ValueError) as error:
        if is_machines(error):
            raise
        raise ArtifactError(f"{path}: damaged ({error}); delete it and run again") from None


def write_table(path: str | Path, table: pd.DataFrame, csv: bool = False) -> None:
    """Write a table as Parquet, and with `csv` also as CSV where a person will look.

    Args:
        path: of the Parquet file.
        table: what to write.
        csv: whether to write `<path>.csv` next to it, with the ending replaced.
    """
    path = Path(path)
    with atomic_path(path) as temporary:
        table.to_parquet(temporary, index=False)
    if csv:
        write_csv(path.with_suffix(".csv"), table)


def write_csv(path: str | Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False)


def write_columns(path: Path, columns: Columns) -> None:
    """Write columns of equal length: numbers, or texts (object arrays, lists)."""
    import pyarrow as pa
    from pyarrow import parquet

    arrays = [_arrow(np.asarray(values)) for values in columns.values()]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    with atomic_path(path) as temporary:
        parquet.write_table(table, temporary)


def _arrow(values: np.ndarray) -> pa.Array:
    """An Arrow array made from buffers, because `pyarrow.array` imports pandas."""
    import pyarrow as pa

    if values.dtype.kind in "OU":
        encoded = [str(value).encode() for value in values]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int32)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        texts = pa.py_buffer(b"".join(encoded))
        return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(offsets), texts)
    kind, n = pa.from_numpy_dtype(values.dtype), len(values)
    if values.dtype.kind == "b":  # Arrow keeps a bit for each, numpy a byte
        values = np.packbits(values, bitorder="little")
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, n, [None, buffer])


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
