"""Reader, device and writer at work at the same time, over a shared queue of slides.

One thread reads tiles (with decoding threads behind it), one feeds the network, one writes; they
are joined by short queues, so that memory is bounded and the device waits for nobody as long as the
disk and the decoders keep up. Tiles are decoded once and go through all encoders of a group. With
several devices, each has its own three threads and takes the next slide when it is free.

A batch holds tiles of one slide only, always the same ones, so that what else is in the chunk
changes no number.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pipeline import ledger
from pipeline.encoders.build import Encoder, encode
from pipeline.errors import SlideError
from pipeline.extraction.channel import Channel, Stopped
from pipeline.extraction.grid import Grid
from pipeline.extraction.reader import open_source
from pipeline.extraction.writer import Block, facts, feature_file
from pipeline.faults import is_machines
from pipeline.ledger import Record
from pipeline.slides.identity import check_unchanged

READ_AHEAD = 3  # batches between reader and device, and between device and writer
CPU = torch.device("cpu")
CPU_PART = 4  # tiles that one thread takes through a network
IN_FLIGHT = 2  # batches on a GPU whose results have not been fetched


@dataclasses.dataclass(frozen=True)
class Job:
    """A slide and what is to be made of it.

    Attributes:
        slide_id: the slide.
        path: its file.
        grid: its tiles.
        outputs: teacher to the feature file to make, for the teachers that still need it.
        fingerprints: teacher to the file's fingerprint.
    """

    slide_id: str
    path: Path
    grid: Grid
    outputs: Mapping[str, Path]
    fingerprints: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Tiles on their way to the device; `error` ends the slide, `tiles` None ends it well."""

    job: Job
    rows: np.ndarray
    tiles: torch.Tensor | None
    dropped: int = 0
    error: SlideError | None = None


@dataclasses.dataclass(frozen=True)
class Result:
    """Features on their way to the writer; teacher -> None ends the slide."""

    job: Job
    features: Mapping[str, Block] | None
    error: SlideError | None = None


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to run.

    Attributes:
        batch_size: tiles per forward pass.
        workers: decoding threads per device.
        on_bad_tile: `fail` the slide, or `drop` the tile.
        direct: whether compressed blocks may be decoded directly.
        decode_on_gpu: whether JPEG blocks go to the GPU as they are.
    """

    batch_size: int
    workers: int
    on_bad_tile: str = "fail"
    direct: bool = True
    decode_on_gpu: bool = False


def extract(
    jobs: Sequence[Job],
    encoders: Mapping[torch.device, Sequence[Encoder]],
    settings: Settings,
    label: str = "extraction",
) -> dict[tuple[str, str], Record]:
    """Make the feature files of some slides.

    Args:
        jobs: the slides; each is taken by the next free device.
        encoders: device to the teachers' networks on it.
        settings: how to run.
        label: for the progress bar.

    Returns:
        (slide, teacher) to its record.

    Raises:
        Exception: whatever is not one slide's fault: a full disk, a lost device.
    """
    stop = threading.Event()
    lock = threading.Lock()
    queue = iter(jobs)
    records: dict[tuple[str, str], Record] = {}
    errors: list[BaseException] = []

    def next_job() -> Job | None:
        with lock:
            return next(queue, None)

    total = sum(len(job.grid.coords) for job in jobs)
    with tqdm(total=total, desc=label, unit="tile", disable=None, smoothing=0.02) as bar:
        threads = [
            threading.Thread(target=_guard, args=(work, stop, errors), daemon=True)
            for device, group in encoders.items()
            for work in _threads(next_job, device, group, settings, stop, records, bar.update)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(timeout=0.5)
        except BaseException:
            stop.set()
            raise
    if errors:
        raise errors[0]
    return records


def _guard(work: Callable[[], None], stop: threading.Event, errors: list[BaseException]) -> None:
    try:
        work()
    except Stopped:
        pass
    except BaseException as error:
        errors.append(error)
        stop.set()


def _threads(
    next_job: Callable[[], Job | None],
    device: torch.device,
    encoders: Sequence[Encoder],
    settings: Settings,
    stop: threading.Event,
    records: dict[tuple[str, str], Record],
    progress: Callable[[int], Any],
) -> list[Callable[[], None]]:
    """The reader, device and writer loops of one device."""
    read: Channel[Batch] = Channel(READ_AHEAD, stop)
    made: Channel[Result] = Channel(READ_AHEAD, stop)
    return [
        lambda: _read_slides(next_job, read, settings, device),
        lambda: _run_device(read, made, device, encoders, settings.workers),
        lambda: _write_slides(made, encoders, records, progress),
    ]


# --- reader ---------------------------------------------------------------------------------------


def _read_slides(
    next_job: Callable[[], Job | None],
    to: Channel[Batch],
    settings: Settings,
    device: torch.device,
) -> None:
    while (job := next_job()) is not None:
        error = None
        try:
            for batch in read_batches(job, settings, device):
                to.put(batch)
        except SlideError as problem:
            if is_machines(problem):
                raise
            _check_slide(job, thorough=True)
            error = problem
        to.put(Batch(job, np.empty(0, np.int64), None, error=error))
    to.close()


def read_batches(job: Job, settings: Settings, device: torch.device = CPU) -> Iterator[Batch]:
    """A slide's tiles in batches, in pinned memory for a GPU, or on it if it decodes them.

    Raises:
        SlideError: the slide cannot be opened, or, with `on_bad_tile: fail`, a tile not be read.
        MachineError: the slide is not the file that was tiled, or it changed while it was read.
    """
    grid = job.grid
    there = device if settings.decode_on_gpu else None
    _check_slide(job)
    source = open_source(job.path, grid, settings.workers, settings.direct, there)
    pinned = device.type == "cuda" and source.device is None
    try:
        for start in range(0, len(grid.coords), settings.batch_size):
            stop = min(start + settings.batch_size, len(grid.coords))
            shape = (stop - start, grid.side, grid.side, 3)
            tiles = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned, device=source.device)
            bad = source.read(start, stop, tiles if source.device else tiles.numpy())
            rows = np.arange(start, stop)
            if bad:
                if settings.on_bad_tile == "fail":
                    index, error = min(bad.items())
                    x, y = grid.coords[start + index]
                    raise SlideError(f"tile at ({x}, {y}): {error.reason}", error.kind)
                keep = np.array([i for i in range(stop - start) if i not in bad], np.int64)
                tiles, rows = tiles[torch.from_numpy(keep)], rows[keep]
                if any(is_machines(error) for error in bad.values()):
                    _check_slide(job, thorough=True)
            yield Batch(job, rows, tiles, dropped=len(bad))
    finally:
        source.close()
    _check_slide(job)


def _check_slide(job: Job, thorough: bool = False) -> None:
    """Tiles and pixels must be of the same file."""
    if job.grid.slide:
        check_unchanged(job.path, job.grid.slide, thorough)


# --- device ---------------------------------------------------------------------------------------


def _run_device(
    batches: Channel[Batch],
    to: Channel[Result],
    device: torch.device,
    encoders: Sequence[Encoder],
    workers: int,
) -> None:
    flying: deque[tuple[Batch, Callable[[], Mapping[str, Mapping[str, np.ndarray]]]]] = deque()

    most: dict[str, int] = {}
    pool = None if device.type == "cuda" else ThreadPoolExecutor(max(1, workers))

    def land() -> None:
        batch, fetch = flying.popleft()
        features = {
            teacher: Block(batch.rows, levels, batch.dropped) for teacher, levels in fetch().items()
        }
        to.put(Result(batch.job, features))

    for batch in batches:
        if batch.tiles is None:
            while flying:
                land()
            to.put(Result(batch.job, None, batch.error))
            continue
        wanted = [e for e in encoders if e.name in batch.job.outputs]
        flying.append((batch, launch(wanted, batch.tiles, device, most, pool)))
        while len(flying) > (IN_FLIGHT if device.type == "cuda" else 0):
            land()
    if pool is not None:
        pool.shutdown()
    to.close()


def launch(
    encoders: Sequence[Encoder],
    tiles: torch.Tensor,
    device: torch.device,
    most: dict[str, int],
    pool: ThreadPoolExecutor | None = None,
) -> Callable[[], Mapping[str, Mapping[str, np.ndarray]]]:
    """Start a batch on the device.

    Args:
        encoders: the networks to run it through.
        tiles: uint8 (B, S, S, 3) in the host's memory, pinned for a GPU.
        device: where the networks are.
        most: teacher to the tiles that fit at once, where that is known; learnt here.
        pool: for a CPU, threads that share the batch.

    Returns:
        a function that waits for the results: teacher to level to float16 (B, D).
    """
    if pool is not None:
        waiting = {e.name: _share(e, tiles, pool) for e in encoders}
        return lambda: {name: _joined(parts) for name, parts in waiting.items()}
    there = tiles.to(device, non_blocking=True)
    results = {e.name: encode_in_parts(e, there, most) for e in encoders}
    if device.type != "cuda":
        return lambda: {k: {m: t.numpy() for m, t in v.items()} for k, v in results.items()}
    here = {
        name: {level: _to_host(values) for level, values in levels.items()}
        for name, levels in results.items()
    }
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(device))

    def fetch() -> Mapping[str, Mapping[str, np.ndarray]]:
        done.synchronize()
        return {k: {m: t.numpy() for m, t in v.items()} for k, v in here.items()}

    return fetch


def _share(
    encoder: Encoder, tiles: torch.Tensor, pool: ThreadPoolExecutor
) -> list[Future[dict[str, torch.Tensor]]]:
    """The batch in parts of one size, each for one thread.

    Threads that share one forward pass would sum in another order for each number of them, and a
    machine with more cores would give other features.
    """
    return [pool.submit(encode, encoder, part) for part in tiles.split(CPU_PART)]


def _joined(parts: Sequence[Future[dict[str, torch.Tensor]]]) -> dict[str, np.ndarray]:
    found = [part.result() for part in parts]
    return {level: torch.cat([part[level] for part in found]).numpy() for level in found[0]}


def encode_in_parts(
    encoder: Encoder, tiles: torch.Tensor, most: dict[str, int]
) -> dict[str, torch.Tensor]:
    """`encode`, in as many tiles at once as the device's memory has room for.

    What did not fit is halved, and what fits is remembered, so that later batches do not run into
    the same wall.

    Args:
        encoder: the network.
        tiles: on the device.
        most: teacher to the tiles that fit at once; lowered here.

    Raises:
        torch.OutOfMemoryError: not even one tile fits.
    """
    parts = []
    for part in tiles.split(min(len(tiles), most.get(encoder.name, len(tiles)))):
        try:
            parts.append(encode(encoder, part))
            continue
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
        torch.cuda.empty_cache()
        most[encoder.name] = -(-len(part) // 2)
        parts.append(encode_in_parts(encoder, part, most))
    return {level: torch.cat([part[level] for part in parts]) for level in parts[0]}


def _to_host(values: torch.Tensor) -> torch.Tensor:
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    return host.copy_(values, non_blocking=True)


# --- writer ---------------------------------------------------------------------------------------


def _write_slides(
    results: Channel[Result],
    encoders: Sequence[Encoder],
    records: dict[tuple[str, str], Record],
    progress: Callable[[int], Any],
) -> None:
    named = {e.name: e for e in encoders}
    remaining = iter(results)
    for first in remaining:
        _write_slide(first, remaining, named, records, progress)


def _write_slide(
    first: Result,
    following: Iterator[Result],
    encoders: Mapping[str, Encoder],
    records: dict[tuple[str, str], Record],
    progress: Callable[[int], Any],
) -> None:
    """Write one slide's files, one per teacher, from its first result to its last."""
    job = first.job
    files: dict[str, contextlib.ExitStack] = {}
    appends: dict[str, Callable[[Block], None]] = {}
    try:
        for teacher, path in job.outputs.items():
            encoder = encoders[teacher]
            files[teacher] = contextlib.ExitStack()
            appends[teacher] = files[teacher].enter_context(
                feature_file(path, job.grid, encoder.dims, _attributes(job, encoder))
            )
        for result in itertools.chain([first], following):
            if result.features is None:
                for teacher, file in files.items():
                    records[job.slide_id, teacher] = _finish(file, job, teacher, result.error)
                return
            for teacher, block in result.features.items():
                if teacher not in files:
                    continue
                try:
                    appends[teacher](block)
                except SlideError as error:
                    file = files.pop(teacher)
                    records[job.slide_id, teacher] = _finish(file, job, teacher, error)
            progress(max(len(b.rows) + b.dropped for b in result.features.values()))
    except BaseException as error:
        for file in files.values():
            with contextlib.suppress(type(error)), file:
                raise error
        raise


def _finish(file: contextlib.ExitStack, job: Job, teacher: str, error: SlideError | None) -> Record:
    """Close a feature file, or throw it away with an error, and say what became of it."""
    stage = f"extraction/{teacher}"
    try:
        with file:
            if error is not None:
                raise error
    except SlideError as problem:
        job.outputs[teacher].unlink(missing_ok=True)  # an earlier run's, now without a slide
        return ledger.failed(job.slide_id, stage, problem)
    return finished(job.slide_id, teacher, job.outputs[teacher])


def finished(slide_id: str, teacher: str, path: Path) -> Record:
    """The record of a slide whose feature file is whole."""
    return Record(slide_id, f"extraction/{teacher}", "ok", path=str(path), facts=facts(path))


def _attributes(job: Job, encoder: Encoder) -> dict[str, Any]:
    return {
        **encoder.facts,
        "teacher": encoder.name,
        "slide_id": job.slide_id,
        "precision": encoder.precision,
        "fingerprint": job.fingerprints[encoder.name],
        **{f"dim_{level}": dim for level, dim in encoder.dims.items()},
        "dim": encoder.dims.get("high", 0),
    }
