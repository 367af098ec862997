"""Captions of tiles from a CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import UserError

COLUMNS = ("slide_id", "x", "y", "caption")


def read_captions(path: Path) -> pd.DataFrame:
    """Captions from a CSV with columns slide_id, x, y and caption.

    Args:
        path: the file; x and y are a tile's upper left corner in level-0 pixels.

    Returns:
        columns slide_id and caption (text, without blanks around it), x and y (int64).

    Raises:
        UserError: the file is missing or no table, lacks a column, or a row has no caption or no
            whole numbers for its place.
    """
    try:
        table = pd.read_csv(path, dtype={"slide_id": str, "caption": str})
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the captions cannot be read ({error})") from None
    absent = [c for c in COLUMNS if c not in table.columns]
    if absent:
        raise UserError(
            f"{path}: no column {', '.join(absent)}; captions need {', '.join(COLUMNS)}"
        )
    said = table["caption"].str.strip()
    _refuse(path, (said.isna() | (said == "")).to_numpy(), "has no caption")
    _refuse(path, table["slide_id"].isna().to_numpy(), "has no slide_id")
    found = pd.DataFrame({"slide_id": table["slide_id"], "caption": said})
    for axis in ("x", "y"):
        values = pd.to_numeric(table[axis], errors="coerce").to_numpy(np.float64)
        wrong = ~np.isfinite(values) | (values % 1 != 0)
        _refuse(path, wrong, f"needs a whole number of level-0 pixels as {axis}")
        found[axis] = values.astype(np.int64)
    return found[list(COLUMNS)]


def _refuse(path: Path, wrong: np.ndarray, why: str) -> None:
    """Name the first row that is wrong, counted as an editor shows them, with the heading as 1."""
    if wrong.any():
        raise UserError(f"{path}: row {int(np.flatnonzero(wrong)[0]) + 2} {why}")
