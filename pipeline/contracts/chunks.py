"""Where the manifests of a stage's chunks are."""

from __future__ import annotations

from pathlib import Path

from pipeline.files.parquet import read_table


def manifests_of(root: Path, folder: str) -> list[Path]:
    """The manifests of the chunks that the cohort has now; older ones may lie next to them.

    Args:
        root: the results folder.
        folder: below it, the one that the stage writes to, e.g. `tiles`.
    """
    chunks = sorted(read_table(root / "slides.parquet")["chunk"].unique())
    return [root / folder / "manifest" / f"{chunk}.json" for chunk in chunks]
