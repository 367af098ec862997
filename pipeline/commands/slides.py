"""The stages that go slide by slide: cohort, tiling, extraction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.accounting.job_records import recorded
from pipeline.commands.options import (
    Base,
    Cfg,
    ChunkNumber,
    Device,
    Gpus,
    Out,
    Root,
    Workers,
)
from pipeline.contracts.chunks import manifests_of
from pipeline.errors import UserError
from pipeline.plan import stage_params, stage_versions
from pipeline.runtime import gpu_locks
from pipeline.runtime.progress import reported


def cohort_chunk(
    cfg: Cfg, chunk: ChunkNumber, out: Out, workers: Workers = 1, base: Base = Path()
) -> None:
    """Write one chunk's slide table; slides of the embedded cohort are drawn first."""
    from pipeline.cohort import stage

    job = stage_params.read(stage_params.ChunkJob, cfg)
    with recorded(out.parent.parent, "cohort_chunk", chunk=chunk):
        stage.run_chunk(cfg=job.cohort, chunk=chunk, base=base, out=out, workers=workers)


def tiling(
    slide: Annotated[
        Path | None, typer.Option(help="Tile this one slide, without a workflow.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Manifest to write; with --slide, the folder.")] = Path(
        "tiles"
    ),
    config: Annotated[Path | None, typer.Option(help="With --slide: a config file.")] = None,
    mpp: Annotated[float | None, typer.Option(help="With --slide: µm per pixel.")] = None,
    mask: Annotated[Path | None, typer.Option(help="With --slide: GeoJSON of the tissue.")] = None,
    coordinates: Annotated[
        Path | None,
        typer.Option(help="With --slide: tiles of TRIDENT or CLAM, instead of the grid."),
    ] = None,
    cfg: Annotated[str | None, typer.Option(help="The stage's job as JSON.")] = None,
    root: Root = Path("results"),
    chunk: ChunkNumber = 0,
    workers: Workers = 1,
    tiles: Annotated[str, typer.Option(help="The folder below --root to write to.")] = "tiles",
) -> None:
    """Find the tissue of a chunk of slides and lay the tile grid over it."""
    from pipeline.tiling import stage

    if slide is not None:
        from pipeline.config.reading import load
        from pipeline.config.tiling import TilingConfig
        from pipeline.contracts import slide_warnings

        section = load(config).tiling if config else TilingConfig()
        record = stage.run_slide(
            cfg=section,
            versions=stage_versions.text(stage_versions.stage("tiling")),
            slide=slide,
            out_dir=out,
            mpp=mpp,
            mask=mask,
            coordinates=coordinates,
        )
        typer.echo(f"{record.slide_id}: {record.status} {record.reason}".rstrip())
        for key, value in record.facts.items():
            if key != slide_warnings.FACT:
                typer.echo(f"  {key}: {value}")
        for warning in slide_warnings.of(record.facts):
            typer.echo(f"  warning, {warning.kind}: {warning.text}")
        raise typer.Exit(0 if record.status in ("ok", "empty") else 1)
    if cfg is None:
        raise UserError("tiling: give --slide FILE, or --cfg with --root, --chunk and --out")
    job = stage_params.read(stage_params.TilingJob, cfg)
    with recorded(root, "tiling", chunk=chunk, tiles=tiles.removeprefix("tiles")):
        stage.run(
            cfg=job.tiling,
            versions=stage_versions.text(stage_versions.stage("tiling")),
            root=root,
            chunk=chunk,
            out=out,
            workers=workers,
            tiles=tiles,
        )


def tiling_overview(root: Root) -> None:
    """Write a table and a contact sheet of all tiled slides, the failed ones included."""
    from pipeline.tiling import overview

    with reported("tiling_overview"):
        overview.run(root=root, manifests=manifests_of(root, "tiles"))


def extraction(
    cfg: Cfg,
    root: Root,
    out: Out,
    chunk: ChunkNumber = 0,
    workers: Workers = 1,
    gpus: Gpus = 0,
    device: Device = "auto",
) -> None:
    """Run teachers over a chunk's tiles, or take in features that another tool made."""
    job = stage_params.read(stage_params.ExtractionJob, cfg)
    teachers = list(job.extraction.teachers)
    if job.extraction.teachers[teachers[0]].source == "import":
        from pipeline.extraction import imports

        with recorded(root, "extraction_import", chunk=chunk, teacher=teachers[0]):
            imports.run(
                cfg=job.extraction,
                teacher=teachers[0],
                root=root,
                chunk=chunk,
                out=out,
                expected=job.slides,
            )
        return
    gpu_locks.claim(gpus)
    versions = stage_versions.extraction(job.extraction.teachers, teachers)
    with recorded(root, "extraction", chunk=chunk, teacher="+".join(teachers)):
        from pipeline.extraction import stage

        stage.run(
            cfg=job.extraction,
            teachers=teachers,
            versions={t: stage_versions.text(v) for t, v in versions.items()},
            root=root,
            chunk=chunk,
            out=out,
            workers=workers,
            device=device,
            tiles=job.tiles,
        )


def extraction_check(cfg: Cfg, out: Out) -> None:
    """Check a teacher before the first job that needs a GPU, and write down what was verified."""
    from pipeline.extraction import check

    job = stage_params.read(stage_params.CheckJob, cfg)
    with recorded(out.parent.parent.parent, "extraction_check", teacher=job.teacher):
        check.run(teacher=job.teacher, settings=job.settings, weights_dir=job.weights_dir, out=out)
