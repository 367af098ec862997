"""What stacking needs of a training: its predictions of cases that it was not trained on."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.errors import ArtifactError
from pipeline.files.parquet import Columns, read_columns, write_columns
from pipeline.files.typed_json import read_typed, write_typed

NAME = "out_of_fold"


@dataclasses.dataclass(frozen=True)
class OutOfFold:
    """How the table was made.

    Attributes:
        fingerprint: of all that decides it.
        seconds: that its trainings took.
    """

    fingerprint: str
    seconds: float


def write_out_of_fold(folder: Path, facts: OutOfFold, table: Columns) -> None:
    """Write them into a training's folder; what says that they are there comes last.

    Args:
        folder: of the fold and seed.
        facts: how the table was made.
        table: of predictions.
    """
    (folder / f"{NAME}.json").unlink(missing_ok=True)
    write_columns(folder / f"{NAME}.parquet", table)
    write_typed(folder / f"{NAME}.json", facts)


def read_out_of_fold(folder: Path) -> tuple[OutOfFold, Columns] | None:
    """Both of a training's folder; None where they are not there or damaged."""
    try:
        facts = read_typed(folder / f"{NAME}.json", OutOfFold)
        return facts, read_columns(folder / f"{NAME}.parquet")
    except ArtifactError:
        return None
