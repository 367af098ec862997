"""Reader, device and writer at work at the same time, over a shared queue of slides.

One thread reads tiles (with decoding threads behind it), one feeds the network, one writes; they
are joined by short queues, so that memory is bounded and the device waits for nobody as long as the
disk and the decoders keep up. Tiles are decoded once and go through all encoders of a group. With
several devices, each has its own three threads and takes the next slide when it is free.

A batch holds tiles of one slide only, always the same ones, so that what else is in the chunk
changes no number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from pipeline.contracts.ledger import Record
from pipeline.encoders.build import Encoder
from pipeline.extraction.engine.channel import Channel, Stopped
from pipeline.extraction.engine.encoding import encode_batches
from pipeline.extraction.engine.messages import Batch, Result, Settings, SlideToRead
from pipeline.extraction.engine.reading import read_slides
from pipeline.extraction.engine.writing import write_slides
from pipeline.runtime import progress

READ_AHEAD = 3  # batches between reader and device, and between device and writer


def extract(
    jobs: Sequence[SlideToRead],
    encoders: Mapping[torch.device, Sequence[Encoder]],
    settings: Settings,
) -> dict[tuple[str, str], Record]:
    """Make the feature files of some slides.

    Args:
        jobs: the slides; each is taken by the next free device.
        encoders: device to the teachers' networks on it.
        settings: how to run.

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

    def next_job() -> SlideToRead | None:
        with lock:
            return next(queue, None)

    total = sum(len(job.grid.coords) for job in jobs)
    with progress.part("tiles", total) as part:

        def advance(tiles: int) -> None:
            part.step(tiles)
            part.note = f"{len({slide for slide, _ in records}):,} of {len(jobs):,} slides finished"

        threads = [
            threading.Thread(target=_guard, args=(work, stop, errors), daemon=True)
            for device, group in encoders.items()
            for work in _threads(next_job, device, group, settings, stop, records, advance)
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
    next_job: Callable[[], SlideToRead | None],
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
        lambda: read_slides(next_job, read, settings, device),
        lambda: encode_batches(read, made, device, encoders, settings.workers),
        lambda: write_slides(made, encoders, records, progress),
    ]
