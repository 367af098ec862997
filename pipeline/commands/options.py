"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Cfg = Annotated[
    str, typer.Option(help="The stage's parameters as JSON, made by pipeline.plan.stage_params.")
]
Root = Annotated[Path, typer.Option(help="The cohort's results folder, results/<cohort>.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes or threads that may work at once.")]
Gpus = Annotated[
    int, typer.Option(min=0, help="GPUs of this machine to claim; 0: whatever is visible.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:<n>.")]
ChunkNumber = Annotated[int, typer.Option(min=0, help="The hash bucket of slides to work on.")]
Out = Annotated[Path, typer.Option(help="The manifest or table to write.")]
Base = Annotated[Path, typer.Option(help="Folder that the config's relative paths start from.")]
ConfigFile = Annotated[Path, typer.Option(help="The config file.")]


def manifests(root: Path, folder: str) -> list[Path]:
    """The manifests of the chunks that the cohort has now; older ones may lie next to them."""
    from pipeline.files.parquet import read_table

    chunks = sorted(read_table(root / "slides.parquet")["chunk"].unique())
    return [root / folder / "manifest" / f"{chunk}.json" for chunk in chunks]
