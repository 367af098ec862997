"""Tables, with pandas and without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ArtifactError
from pipeline.files import parquet


@pytest.mark.parametrize("read", [parquet.read_table, parquet.read_columns])
def test_what_cannot_be_read_says_what_to_do(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    with pytest.raises(ArtifactError, match=r"none\.parquet: missing; run the stage"):
        read(tmp_path / "none.parquet")
    (tmp_path / "half.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="delete it and run again"):
        read(tmp_path / "half.parquet")


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    parquet.write_columns(tmp_path / "t.parquet", {"a": [1], "b": ["x"]})
    assert parquet.read_columns(tmp_path / "t.parquet", ["b"]) == {"b": ["x"]}
    with pytest.raises(ArtifactError, match=r"t\.parquet: no column c, d; it was made by another"):
        parquet.read_columns(tmp_path / "t.parquet", ["a", "c", "d"])


def test_tables_round_trip(tmp_path: Path) -> None:
    table = pd.DataFrame({"case_id": ["a", "b"], "x": [1.0, 2.0]})
    parquet.write_table(tmp_path / "t.parquet", table, csv=True)
    assert parquet.read_table(tmp_path / "t.parquet").equals(table)
    assert pd.read_csv(tmp_path / "t.csv").equals(table)


def test_a_table_of_many_columns_is_read_some_at_a_time(tmp_path: Path) -> None:
    names = [f"gene{i}" for i in range(2 * parquet.AT_ONCE + 5)]
    table = pd.DataFrame(np.arange(3.0 * len(names)).reshape(3, -1), columns=names)
    table.insert(1, "text", ["a", None, "c"])
    parquet.write_table(tmp_path / "t.parquet", table)
    assert parquet.read_table(tmp_path / "t.parquet").equals(table)
    columns = parquet.read_columns(tmp_path / "t.parquet")
    assert list(columns) == list(table.columns)
    assert columns["text"] == ["a", None, "c"]
    assert columns[names[-1]] == table[names[-1]].tolist()


@pytest.mark.parametrize("n", [1, 7, 8, 9, 60])
def test_booleans_come_back_as_they_were(tmp_path: Path, n: int) -> None:
    for flags in ([True] * n, [False] * n, [i % 3 == 0 for i in range(n)]):
        parquet.write_columns(tmp_path / "t.parquet", {"flag": np.array(flags)})
        assert parquet.read_columns(tmp_path / "t.parquet")["flag"] == flags
