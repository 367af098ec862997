"""Tiling: slides in, coordinates of physical tiles, tissue outlines and pictures out.

What only a whole chunk needs is imported where it is used: one slide is often one process.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from pipeline.config.tiling import TilingConfig
from pipeline.contracts import slide_warnings
from pipeline.contracts.ledger import Record, failed, write_manifest
from pipeline.errors import MachineError, SlideError, UserError
from pipeline.files.artifacts import COMPLETE, FINGERPRINT, sweep
from pipeline.files.checksums import checksum, is_intact
from pipeline.files.digests import digest
from pipeline.files.hdf5 import read_hdf5
from pipeline.files.identity import MISSING, check_unchanged, content_digest, file_identity
from pipeline.files.parquet import read_columns
from pipeline.runtime import progress
from pipeline.runtime.child_processes import stay_with_parent
from pipeline.runtime.cpu_budget import cpu_budget
from pipeline.runtime.machine_errors import is_machines
from pipeline.slides import tiff
from pipeline.slides.mpp import find_scale
from pipeline.slides.slide import open_slide
from pipeline.tiling.examine import Findings, examine
from pipeline.tiling.reasons import why_empty
from pipeline.tiling.write import RECORD, Files, write

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Raised when tiles, tissue or what is measured on them change (`slides/` included). 1: the first.
# 2: no pen is looked for where the colours are unusual.
VERSION = 2

STAGE = "tiling"
UNSCALED = ("no_mpp", "implausible_mpp")
# Kinds of failure that a disk which does not give the bytes would look like.
UNREAD = ("unreadable", "unopenable", "truncated", "crashed")
# How a decoder takes its process with it. Any other end is the machine's: SIGKILL is what a process
# gets that needs more memory than there is.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


@dataclasses.dataclass(frozen=True)
class SlideToTile:
    """One slide to be tiled.

    Attributes:
        slide_id, path, mpp, mask, coordinates: as in the sheet.
        there: whether the file was there when the run began.
    """

    slide_id: str
    path: str
    mpp: float | None
    mask: str
    coordinates: str = ""
    there: bool = False


def run(
    *,
    cfg: TilingConfig,
    versions: str,
    root: Path,
    chunk: int,
    out: Path,
    workers: int,
    tiles: str = "tiles",
) -> None:
    """Tile the slides of one chunk and write its manifest.

    Slides that were finished with the same config, versions and inputs are recognised and skipped.

    Args:
        cfg: the tiling section.
        versions: of the code that makes tiles; part of what is recognised.
        root: results folder with `slides/<chunk>.parquet`.
        chunk: which hash bucket.
        out: the manifest.
        workers: processes.
        tiles: the folder below `root`; each scale has its own.

    Raises:
        ArtifactError: `slides/<chunk>.parquet` is missing or damaged.
        MachineError: a slide vanished or was replaced meanwhile, or there is too little memory.
        OSError: the results cannot be written, or a disk does not answer.
    """
    folder = root / tiles
    jobs = _jobs(root / "slides" / f"{chunk}.parquet", chunk)
    sweep(folder, folder / "qc", folder / "thumbnails", out.parent)
    records: list[Record] = []
    todo: list[SlideToTile] = []
    for job in jobs:
        known = _finished(job, cfg, versions, folder)
        if known is None:
            todo.append(job)
        else:
            records.append(known)
    with progress.part("slides", len(jobs), done=len(records)) as part:
        for record in _tile_all(todo, cfg, versions, folder, workers):
            records.append(record)
            part.step(tiles=record.n_tiles)
    write_manifest(out, STAGE, digest(cfg.canonical(), versions), records)
    records.sort(key=lambda record: record.slide_id)
    for line in slide_warnings.summary(slide_warnings.pairs(records), out.name):
        print(line, flush=True)


def run_slide(
    *,
    cfg: TilingConfig,
    versions: str,
    slide: Path,
    out_dir: Path,
    mpp: float | None = None,
    mask: Path | None = None,
    coordinates: Path | None = None,
    slide_id: str | None = None,
) -> Record:
    """Tile one slide, or recognise that it is done.

    Args:
        cfg: the tiling section.
        versions: of the code that makes tiles; part of what is recognised.
        slide: the slide.
        out_dir: gets `<slide_id>.h5`, `<slide_id>.geojson`, `qc/` and `thumbnails/`.
        mpp: µm per pixel of level 0, in place of the file's own.
        mask: GeoJSON or mask image, in place of the segmentation.
        coordinates: TRIDENT or CLAM file, in place of the grid.
        slide_id: the name of the files; the slide's own without its ending by default.

    Returns:
        What became of it: ok, empty, failed or excluded. Its `path` is relative to the folder
        above `out_dir`.
    """
    job = SlideToTile(
        slide_id or slide.stem, str(slide), mpp, str(mask or ""), str(coordinates or "")
    )
    return _finished(job, cfg, versions, out_dir) or _tile(job, cfg, versions, out_dir)


def _jobs(table: Path, chunk: int) -> list[SlideToTile]:
    """The chunk's slides. Read without pandas, which would double the start-up time."""
    wanted = ["slide_id", "path", "mpp", "mask", "coordinates", "chunk", "identity"]
    columns = read_columns(table, wanted)
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return [
        SlideToTile(
            str(row["slide_id"]),
            row["path"] or "",
            None if row["mpp"] is None or math.isnan(row["mpp"]) else float(row["mpp"]),
            row["mask"] or "",
            row["coordinates"] or "",
            there=(row["identity"] or MISSING).partition("+")[0] != MISSING,
        )
        for row in rows
        if row["chunk"] == chunk
    ]


def _tile_all(
    jobs: list[SlideToTile], cfg: TilingConfig, versions: str, folder: Path, workers: int
) -> Iterator[Record]:
    """Tile in separate processes: a decoder that crashes takes one slide with it, not the run."""
    from concurrent.futures.process import BrokenProcessPool

    if not jobs:
        return
    done: set[str] = set()
    try:
        for record in _pooled(jobs, cfg, versions, folder, min(workers, len(jobs))):
            done.add(record.slide_id)
            yield record
    except BrokenProcessPool:
        for job in jobs:
            if job.slide_id not in done:
                yield _tile_alone(job, cfg, versions, folder)


def _tile_alone(job: SlideToTile, cfg: TilingConfig, versions: str, folder: Path) -> Record:
    """Tile in a process of its own, whose end tells a damaged file from a lack of memory."""
    context = _context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, job, cfg, versions, folder))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        found = None
    process.join()
    if isinstance(found, Record):
        return found
    if isinstance(found, BaseException):
        raise found
    name = Path(job.path).name
    if process.exitcode is None or -process.exitcode not in CRASHES:
        raise MachineError(
            f"{name}: the process that tiled it ended with {process.exitcode}, as it does for want "
            "of memory; give the job more (`mem_mb` in the profile), or fewer threads"
        )
    check_unchanged(job.path, file_identity(job.path), thorough=True)
    Files.of(folder, job.slide_id).remove()
    reason = f"{name}: reading it kills the process; the file is damaged"
    return Record(job.slide_id, STAGE, "failed", kind="crashed", reason=reason)


def _send(to: Connection, job: SlideToTile, cfg: TilingConfig, versions: str, folder: Path) -> None:
    """What `_tile` returns or raises, through a pipe."""
    _begin()
    try:
        found: Any = _tile(job, cfg, versions, folder)
    except Exception as error:
        found = error
    to.send(found)


def _begin() -> None:
    """At the start of every worker."""
    stay_with_parent()
    cv2.setNumThreads(1)


def _context() -> multiprocessing.context.ForkServerContext:
    """A forked child would inherit the parent's threads in a state nobody knows; a fork server has
    none, and pays for the imports once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _pooled(
    jobs: Iterable[SlideToTile], cfg: TilingConfig, versions: str, folder: Path, workers: int
) -> Iterator[Record]:
    from concurrent.futures import ProcessPoolExecutor, as_completed

    with ProcessPoolExecutor(
        max_workers=cpu_budget(max(1, workers)), mp_context=_context(), initializer=_begin
    ) as pool:
        futures = [pool.submit(_tile, job, cfg, versions, folder) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def _fingerprint(job: SlideToTile, cfg: TilingConfig, versions: str, slide: str) -> str:
    given = [content_digest(p) if p else "" for p in (job.mask, job.coordinates)]
    learned = cfg.tissue.method == "learned"
    weights = file_identity(str(cfg.tissue.weights)) if learned else ""
    return digest(cfg.canonical(), versions, slide, job.mpp, *given, weights)


def _finished(job: SlideToTile, cfg: TilingConfig, versions: str, folder: Path) -> Record | None:
    """The record of a slide whose files were made from the same inputs."""
    path = Files.of(folder, job.slide_id).tiles
    if not job.path or not path.is_file():
        return None
    fingerprint = _fingerprint(job, cfg, versions, file_identity(job.path))
    try:
        with read_hdf5(path) as file:
            attributes: Any = file.attrs
            if not attributes.get(COMPLETE) or attributes.get(FINGERPRINT) != fingerprint:
                return None
            record = Record(**json.loads(attributes[RECORD]))
            coords = file["coords"][()]
            whole = len(coords) == record.n_tiles
            return record if whole and is_intact(file["coords"], checksum(coords)) else None
    except (OSError, KeyError, ValueError, TypeError) as error:
        if is_machines(error):
            raise
        return None


def _tile(job: SlideToTile, cfg: TilingConfig, versions: str, folder: Path) -> Record:
    """Tile one slide; whatever is wrong with it becomes its record."""
    files = Files.of(folder, job.slide_id)
    if not job.path:
        files.remove()
        reason = "the sheet gives no slide file"
        return Record(job.slide_id, STAGE, "excluded", kind="no_file", reason=reason)
    slide = file_identity(job.path)
    if job.there and slide == MISSING:
        check_unchanged(job.path, "there")
    fingerprint = _fingerprint(job, cfg, versions, slide)
    try:
        found = _examine(job, cfg)
    except UserError:
        raise
    except Exception as error:
        if is_machines(error):
            raise
        record = failed(job.slide_id, STAGE, error)
        check_unchanged(job.path, slide, thorough=record.kind in UNREAD)
        files.remove()
        if record.kind in UNSCALED and cfg.mpp_policy == "reject":
            record = dataclasses.replace(record, status="excluded")
        return record
    check_unchanged(job.path, slide)
    name = f"{folder.name}/{files.tiles.name}"
    if len(found.tiles.coords):
        record = Record(job.slide_id, STAGE, "ok", path=name, facts=found.facts.as_dict())
    else:
        kind, reason = why_empty(found, cfg)
        record = Record(job.slide_id, STAGE, "empty", kind, reason, name, found.facts.as_dict())
    write(files, found, record, cfg, Path(job.path), slide, fingerprint)
    return record


def _examine(job: SlideToTile, cfg: TilingConfig) -> Findings:
    path = Path(job.path)
    if path.is_file() and tiff.is_tiff(path):
        pages = tiff.read_pages(path)
        tiff.check_size(path, pages)
        tiff.check_whole(path, pages)
    for given, kind in ((job.mask, "bad_mask"), (job.coordinates, "bad_coordinates")):
        if given and not Path(given).is_file():
            raise SlideError(f"{given}: named by the sheet, but does not exist", kind)
    with open_slide(path, cfg.scene) as slide:
        scale = find_scale(slide.properties, slide.dimensions, job.mpp, cfg)
        try:
            return examine(
                slide,
                scale,
                cfg,
                Path(job.mask) if job.mask else None,
                Path(job.coordinates) if job.coordinates else None,
                job.slide_id,
            )
        except SlideError as error:
            doubts = "; ".join(warning.text for warning in scale.warnings)
            if error.kind != "too_coarse" or not doubts:
                raise
            raise SlideError(f"{error.reason} ({doubts})", error.kind) from error
